// Decisions as they happen. Nothing is asked for until somebody wants to watch: opens
// the view that has them alone, or asks for them on another.

import * as api from './api.js';
import { replace } from './address.js';
import { code, el, number, seconds, section, table } from './dom.js';
import { entryText, explainLink, ruleLink } from './descriptor.js';
import { known, ruleAt } from './known.js';

const most = 200; // decisions that are shown

const head = ['Time', 'Verdict', 'Descriptor', 'Rule', { text: 'Left', number: true }, 'Again in'];

const choices = [['', 'all'], ['over,shadow', 'over limit, also in shadow mode'], ['unmatched', 'no rule applies'], ['error', 'errors'], ['ok', 'within the limit']];

// live watches decisions. What filter has of domain and rule stays; changed is called
// with the filter when another verdict is chosen.
export function live(filter, changed = () => {}) {
  const note = el('p', {}, 'Values that clients send are not shown on this address, which is for anyone.');
  const state = el('span', { role: 'status' });
  const lost = el('span');
  const seen = table(head, []);
  seen.hidden = true;
  const body = seen.tBodies[0];
  const button = el('button', { type: 'button', class: 'watch', onclick: () => (stop ? end('Stopped.') : begin()) }, 'Watch');
  const verdict = el('select', { class: 'verdict', onchange: () => {
    filter = { ...filter, verdict: verdict.value };
    changed(filter);
    if (stop) begin();
  } }, choices.map(([value, text]) => el('option', { value }, text)));
  if (!choices.some(([value]) => value === (filter.verdict ?? ''))) verdict.append(el('option', { value: filter.verdict }, filter.verdict));
  verdict.value = filter.verdict ?? '';
  let stop = null; // of the stream, while there is one
  let waiting = []; // decisions that are not drawn yet
  let missed = 0;

  function end(text) {
    stop?.abort();
    stop = null;
    button.textContent = 'Watch';
    state.textContent = text;
  }

  async function begin() {
    stop?.abort();
    const mine = stop = new AbortController();
    button.textContent = 'Stop';
    state.textContent = 'Connecting …';
    try {
      await api.watch(filter, (event, data) => mine === stop && take(event, data), mine.signal);
      if (mine === stop) end('The stream has ended.');
    } catch (failure) {
      if (mine === stop) end(failure.message);
    }
  }

  function take(event, data) {
    if (event === 'begin') {
      state.textContent = 'Watching.';
      missed = 0;
      lost.textContent = '';
    } else if (event === 'lost') {
      missed += data.lost;
      lost.textContent = ` ${number(missed)} decisions came too fast for this page.`;
    } else if (event === 'decision') {
      if (!waiting.length) requestAnimationFrame(draw);
      if (waiting.push(data) > most) waiting.shift(); // nothing is drawn while the page is out of sight
    }
  }

  function draw() {
    seen.hidden = false;
    body.prepend(...table(head, waiting.slice(-most).reverse().map(row)).tBodies[0].rows);
    waiting = [];
    while (body.rows.length > most) body.lastChild.remove();
  }

  return {
    node: el('div', { class: 'live' }, note, el('div', { class: 'bar' }, el('label', {}, 'Verdict', verdict), button, el('span', {}, state, lost)), seen),
    begin,
    close: () => end(''),
    update() {
      note.hidden = known.replica.values;
      verdict.disabled = button.disabled = !known.replica.values;
    },
  };
}

function row(d) {
  const rule = ruleAt(d.domain, d.rule);
  const text = [el('small', {}, code(d.domain)), ' ', code(d.entries.map(entryText).join(', ') + (d.abridged ? ' …' : ''))];
  return el('tr', {},
    el('td', { class: 'short' }, new Date(d.time).toLocaleTimeString(), d.sampled > 1 && el('small', {}, ` one of ${number(d.sampled)}`)),
    el('td', { class: `short ${{ over: 'denied', shadow: 'shadow', ok: 'allowed' }[d.verdict] ?? ''}` }, d.verdict, d.hits !== 1 && el('small', {}, ` ${number(d.hits)} hits`)),
    el('td', { class: 'first' }, d.abridged ? text : explainLink(d.domain, d.entries, ...text)),
    el('td', { class: 'wide' }, rule ? ruleLink(rule) : d.rule ? code(d.rule) : '', d.limit && el('small', {}, ` ${d.limit}${d.brought ? ', from the request' : ''}`), d.error && el('span', { class: 'error' }, d.error)),
    el('td', {}, d.left === undefined ? '' : number(d.left)),
    el('td', { class: 'short' }, d.retry_seconds ? seconds(d.retry_seconds) : ''));
}

// liveView is the stream on a page of its own.
export function liveView({ params }) {
  const inputs = { domain: el('input', { list: 'domains', autocomplete: 'off' }), rule: el('input', { autocomplete: 'off', placeholder: 'path or name' }) };
  const chosen = () => ({ domain: inputs.domain.value, rule: inputs.rule.value });
  const place = el('div');
  let watch;
  const open = (filter) => {
    watch?.close();
    watch = live(filter, (f) => replace('live', f));
    place.replaceChildren(watch.node);
    if (known.replica) begin();
  };
  for (const [name, input] of Object.entries(inputs)) {
    input.value = params.get(name) ?? '';
    input.addEventListener('change', () => {
      const filter = { ...chosen(), verdict: place.querySelector('.verdict').value };
      replace('live', filter);
      open(filter);
    });
  }
  let begun = false;
  const begin = () => {
    watch.update();
    if (known.replica.values) watch.begin();
    begun = true;
  };
  open({ ...chosen(), verdict: params.get('verdict') ?? '' });
  return {
    title: 'Live',
    node: section('Decisions as they happen', el('div', { class: 'bar' }, el('label', {}, 'Domain', inputs.domain), el('label', {}, 'Rule', inputs.rule)), place),
    close: () => watch.close(),
    update: () => (begun ? watch.update() : begin()),
  };
}
