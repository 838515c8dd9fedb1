// The page: rules with live rates, details, explanations and reloads.

import * as api from './api.js';
import { edit } from './editor.js';
import { $, el, number, plot, seconds, show, table, time } from './dom.js';
import { entryText, parseDescriptor } from './limit.js';

const interval = 2000;
let known = { rules: [], etag: null, generation: -1 };
const rows = new Map(); // key → what of a row changes
const visible = new Set();
let latest = new Map(); // key → statistics
const watch = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target: { dataset: { key } } } of seen) {
    if (isIntersecting) {
      visible.add(key);
      paint(key);
    } else {
      visible.delete(key);
    }
  }
});

async function refresh() {
  try {
    const { data, etag } = await api.rules();
    if (etag !== known.etag) {
      known = { ...data, etag };
      draw();
    }
    update((await api.stats()).data);
    const reloads = (await api.reloads()).data;
    sources(reloads);
    history(reloads);
    $('login').hidden = true;
    say('');
  } catch (e) {
    $('login').hidden = e.problem?.status !== 401;
    say(e.problem?.status === 401 ? 'sign in to see the rules' : `no answer: ${e.message}`);
  }
}

// say tells what somebody should hear, once: rates change all the time, and are not
// for being read out.
function say(text) {
  if ($('message').textContent !== text) $('message').textContent = text;
  if (text) $('state').textContent = '';
}

async function loop() {
  await refresh();
  setTimeout(loop, document.hidden ? 10 * interval : interval);
}

// draw builds the tree anew; which domains are open stays.
function draw() {
  const closed = new Set([...document.querySelectorAll('#rules details:not([open])')].map((d) => d.dataset.domain));
  rows.clear();
  visible.clear();
  watch.disconnect();
  const byDomain = new Map((known.domains ?? []).map((d) => [d.domain, []]));
  for (const r of known.rules) {
    if (!byDomain.has(r.domain)) byDomain.set(r.domain, []);
    byDomain.get(r.domain).push(r);
  }
  $('new').hidden = !known.writable;
  $('fixed').hidden = known.writable;
  $('domains').replaceChildren(...[...byDomain.keys()].map((d) => el('option', { value: d })));
  $('rules').replaceChildren(...[...byDomain].map(([domain, rules]) => el('details', { open: !closed.has(domain), 'data-domain': domain },
    el('summary', {}, domain, ' ', el('small', {}, `${rules.length} ${rules.length === 1 ? 'rule' : 'rules'}`)),
    table(['Descriptor', 'Limit', 'From', { text: 'Allowed/s', number: true }, { text: 'Denied/s', number: true }, 'Last minute', ''], rules.map(row)))));
  filter();
  order();
}

// order sorts the rules of each domain, by the rates of the moment.
function order() {
  const by = $('order').value;
  const rate = (r) => latest.get(r.rule.key)?.rates['1m'][by] ?? 0;
  const all = [...rows.values()]; // as written
  if (by) all.sort((a, b) => rate(b) - rate(a));
  for (const { row } of all) row.parentNode.append(row);
}

function row(rule) {
  const names = rule.entries.map(entryText);
  const r = { rule, allowed: el('td', { class: 'number allowed' }, '0'), denied: el('td', { class: 'number denied' }, '0'), plot: el('td', {}) };
  r.row = el('tr', { 'data-key': rule.key },
    el('td', { class: 'path' }, el('button', { class: 'link code', type: 'button', onclick: () => details(rule) },
      names.slice(0, -1).map((n) => el('span', { class: 'above' }, `${n} › `)), names.at(-1))),
    el('td', {}, rule.limits),
    el('td', {}, el('span', { class: `tag ${rule.source}`, title: rule.location }, rule.overrides ? `${rule.source}, overrides ${rule.overrides.source}` : rule.source)),
    r.allowed, r.denied, r.plot,
    el('td', {}, known.writable && el('button', { type: 'button', 'aria-label': `Edit ${rule.domain} ${rule.path}`, onclick: () => edit(rule, known.etag, refresh) }, 'Edit')));
  r.row.firstChild.style.paddingInlineStart = `${(names.length - 1) * 1.25}rem`;
  r.text = [rule.domain, rule.path, ...rule.entries.map(entryText), rule.limits, JSON.stringify(rule.rule)].join(' ').toLowerCase();
  rows.set(rule.key, r);
  watch.observe(r.row);
  return r.row;
}

function update(stats) {
  let allowed = 0;
  let denied = 0;
  for (const s of stats.rules) {
    const now = s.rates['1s'];
    allowed += now.allowed;
    denied += now.denied;
  }
  latest = new Map(stats.rules.map((s) => [s.key, s]));
  visible.forEach(paint); // a thousand rules cost what is in sight
  const failures = stats.service.backend_errors ? `, ${number(stats.service.backend_errors)} backend errors` : '';
  $('state').textContent = `${known.rules.length} rules, ${number(allowed)} allowed/s, ${number(denied)} denied/s${failures}`;
}

function paint(key) {
  const [r, s] = [rows.get(key), latest.get(key)];
  if (!r || !s) return;
  r.allowed.textContent = number(s.rates['1s'].allowed);
  r.denied.textContent = number(s.rates['1s'].denied);
  if (s.history) r.plot.replaceChildren(plot(s.history));
}

function filter() {
  const words = $('filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const r of rows.values()) r.row.hidden = !words.every((w) => r.text.includes(w));
  for (const d of document.querySelectorAll('#rules details')) d.hidden = words.length > 0 && !d.querySelector('tbody tr:not([hidden])');
}

// details shows one rule, and goes on to while the dialog is open.
async function details(rule) {
  const title = `${rule.domain}: ${rule.path}`;
  const live = el('div', {});
  show($('details'), title, el('p', {}, rule.limits), live);
  while (live.isConnected && $('details').open) {
    try {
      live.replaceChildren(...facts(rule, (await api.ruleStats(rule.key)).data));
    } catch (e) {
      live.replaceChildren(el('p', { class: 'error' }, e.message));
      return;
    }
    await new Promise((next) => { setTimeout(next, interval); });
  }
}

function facts(rule, stats) {
  const rate = (name) => `${number(stats.rates[name].allowed)} allowed/s, ${number(stats.rates[name].denied)} denied/s`;
  const hottest = stats.hottest?.counters ?? [];
  return [
    stats.history ? plot(stats.history, 'large') : '',
    el('dl', {},
      term('Allowed', number(stats.totals.allowed)), term('Denied', number(stats.totals.denied)),
      term('Let through by shadow mode', number(stats.totals.shadow_denied)), term('Near the limit', `${number(stats.totals.near_limit)} hits`),
      term('Errors', number(stats.totals.errors)),
      ...(stats.candidates ?? []).map((c) => term(`${c.limit} in shadow mode`, `${number(c.totals.shadow_denied)} of ${number(c.totals.allowed + c.totals.shadow_denied)} would be denied`)),
      term('Last second', rate('1s')), term('Last minute', rate('1m')), term('Last hour', rate('1h')),
      term('Last denied', time(stats.last_denied)), term('Written at', rule.location),
      rule.overrides ? term('Overrides', `${rule.overrides.location}: ${rule.overrides.limits}`) : []),
    el('h3', {}, 'Hottest counters'),
    hottest.length
      ? table(['Entries', { text: 'Calls', number: true }, { text: 'Give or take', number: true }], hottest.map((h) => el('tr', {},
        el('td', { class: 'code' }, h.entries.map(entryText).join(',')), el('td', { class: 'number' }, number(h.calls)), el('td', { class: 'number' }, number(h.error)))))
      : el('p', {}, 'No calls of late.'),
  ];
}

const term = (name, value) => [el('dt', {}, name), el('dd', {}, value)];

async function explain(event) {
  event?.preventDefault();
  const [domain, text] = [$('explain-domain').value, $('explain-descriptor').value];
  const out = $('explanation');
  try {
    const { data: e } = await api.explain(domain, parseDescriptor(text));
    const found = e.outcome === 'matched' ? (await api.counters(domain, text)).data.counters : [];
    out.replaceChildren(
      el('p', {}, el('strong', {}, e.outcome === 'matched' ? `Rule ${e.rule.path} applies.` : 'No limit applies.'), ' ', e.outcome === 'matched' ? '' : e.reason),
      el('ol', { class: 'levels' }, (e.levels ?? []).map(level)),
      ...found.map((c) => el('p', {},
        el('span', { class: c.allowed ? 'allowed' : 'denied' }, c.allowed ? 'would pass' : 'over limit'),
        ` · ${c.algorithm}, ${c.requests_per_unit} per ${c.unit.toLowerCase()}: ${number(c.remaining)} left${c.reset_after_seconds > 0 ? `, resets in ${seconds(c.reset_after_seconds)}` : ''} · counter `,
        el('code', {}, c.counter))),
      found.length ? el('button', { type: 'button', id: 'reset', onclick: () => reset(domain, text) }, found.length > 1 ? 'Reset these counters' : 'Reset this counter') : '');
  } catch (failure) {
    out.replaceChildren(el('p', { class: 'error' }, failure.message));
  }
}

async function reset(domain, text) {
  try {
    await api.reset({ domain, entries: parseDescriptor(text) });
    await explain();
    $('explain-descriptor').focus();
  } catch (failure) {
    $('explanation').append(el('p', { class: 'error' }, failure.message));
  }
}

function level(l) {
  const won = l.tried.find((t) => t.found);
  return el('li', {}, el('code', {}, entryText(l.entry)), ': ',
    won ? `${won.how.replace('_', ' ')} at ${won.found.pos}` : 'nothing matches',
    l.nearest?.length ? ` (nearest: ${l.nearest.map(entryText).join(', ')})` : '');
}

// sources tells at the top what is wrong with the rules of files, xDS or this API.
function sources(data) {
  const notes = [];
  for (const s of data.sources ?? []) {
    if (s.state === 'bad') {
      notes.push(el('div', { class: 'error' }, el('strong', {}, `Rules from ${s.source} are bad${s.in_force ? ': the last good ones stay.' : ', and there are no older ones.'}`),
        (s.problems ?? []).map((p) => el('div', { class: 'code' }, p))));
    } else if (s.state === 'waiting') {
      notes.push(el('div', {}, `There are no rules from ${s.source} yet.`));
    }
  }
  if (data.last.generation > 0 && data.last.rules === 0) {
    notes.push(el('div', { class: 'error' }, el('strong', {}, 'There are no rules: nothing is limited.')));
  }
  const signature = notes.map((n) => n.textContent).join();
  if ($('sources').dataset.signature === signature) return;
  $('sources').dataset.signature = signature;
  $('sources').replaceChildren(...notes);
}

function history(data) {
  const lines = data.history ?? [];
  const signature = JSON.stringify([lines[0]?.time, lines.length]);
  if ($('reloads').dataset.signature === signature) return;
  $('reloads').dataset.signature = signature;
  $('reloads').replaceChildren(lines.length
    ? table(['When', 'Outcome', { text: 'Rules', number: true }, 'Problems'], lines.map((r) => el('tr', {},
      el('td', {}, time(r.time)), el('td', { class: ['failed', 'partly'].includes(r.outcome) && 'error' }, r.outcome),
      el('td', { class: 'number' }, number(r.rules)),
      el('td', {}, [...(r.problems ?? []), ...(r.warnings ?? [])].map((p) => el('div', { class: 'code' }, p))))))
    : el('p', {}, 'None yet.'));
}

$('filter').addEventListener('input', filter);
$('order').addEventListener('change', order);
$('explain').addEventListener('submit', explain);
$('new').addEventListener('click', () => edit(null, known.etag, refresh));
$('login').addEventListener('submit', (event) => {
  event.preventDefault();
  api.setToken($('token').value);
  refresh();
});
loop();
