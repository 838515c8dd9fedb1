// The page of one rule.

import * as api from './api.js';
import { code, el, number, plot, section, table, time, update } from './dom.js';
import { entryText, explainLink, ruleName } from './descriptor.js';
import { known } from './known.js';
import { live } from './live.js';
import { editable, editButton } from './rules.js';

export function ruleView({ path: [, key] }) {
  const about = el('div');
  const facts = el('div');
  const hottest = el('div', { class: 'hottest' }, el('p', {}, '…'));
  const said = el('p', { role: 'status' });
  const below = el('div');
  let watch;

  async function heat(rule) {
    try {
      const { counters } = (await api.ruleStats(key)).data.hottest;
      update(hottest, [counters, known.replica.read_only], () => (counters.length ? table(['Counter', { text: 'Calls', number: true }, { text: 'Give or take', number: true }, ''], counters.map((h) => el('tr', {},
        el('td', { class: 'first' }, code(h.entries.map(entryText).join(', ') + (h.abridged ? ' …' : ''))), el('td', {}, number(h.calls)), el('td', {}, number(h.error)),
        el('td', { class: 'actions' }, !h.abridged && [
          explainLink(rule.domain, h.entries, 'Explain'), ' ',
          !known.replica.read_only && el('button', { type: 'button', 'aria-label': `Reset ${h.entries.map(entryText).join(', ')}`, onclick: () => reset(rule, h.entries) }, 'Reset'),
        ])))) : el('p', {}, 'No calls of late.')));
    } catch (failure) {
      update(hottest, failure.message, () => el('p', { class: 'error' }, failure.message));
    }
  }

  async function reset(rule, entries) {
    try {
      const { counters } = (await api.reset({ domain: rule.domain, entries })).data;
      said.textContent = `${entries.map(entryText).join(', ')}: ${counters ? 'forgotten.' : 'there was nothing to forget.'}`;
    } catch (failure) {
      said.textContent = failure.message;
    }
  }

  return {
    title: 'Rule',
    node: el('div', { id: 'rule' }, about, facts, below),
    close: () => watch?.close(),
    update() {
      const rule = known.byKey.get(key);
      update(about, [rule, known.writable], () => (rule
        ? [el('h2', {}, ruleName(rule)),
          el('p', {}, rule.limits, ' ', editable(rule) && editButton(rule))]
        : el('p', { class: 'error' }, 'No rule in force has this address: it was deleted, or its domain, keys or values have changed.')));
      facts.hidden = below.hidden = !rule;
      const stats = known.stats.get(key);
      if (!rule || !stats) return;
      document.title = `${rule.domain} ${rule.path} · DistLimiter`;
      facts.replaceChildren(...numbers(rule, stats));
      if (!watch) {
        watch = live({ domain: rule.domain, rule: rule.path });
        below.append(section('Hottest counters', hottest, said), section('Decisions of this rule', watch.node));
      }
      watch.update();
      if (known.replica.values) heat(rule);
      else update(hottest, 'none', () => el('p', {}, 'Values that clients send are not shown on this address, which is for anyone.'));
    },
  };
}

function numbers(rule, stats) {
  const rate = (name) => `${number(stats.rates[name].allowed)} allowed/s, ${number(stats.rates[name].denied)} denied/s`;
  const t = stats.totals;
  return [
    stats.history ? plot(stats.history, 'large') : '',
    el('dl', {},
      term('Last second', rate('1s')), term('Last minute', rate('1m')), term('Last hour', rate('1h')),
      term('Since the start', `${number(t.allowed)} allowed, ${number(t.denied)} denied, ${number(t.errors)} errors`),
      term('Let through by shadow mode', number(t.shadow_denied)), term('Near the limit', `${number(t.near_limit)} hits`),
      ...(stats.candidates ?? []).map((c) => term(`${c.limit} in shadow mode`, `${number(c.totals.shadow_denied)} of ${number(c.totals.allowed + c.totals.shadow_denied)} would be denied`)),
      ...(stats.holds ? [term('Holds', `${number(stats.holds.granted)} granted, ${number(stats.holds.settled)} settled, ${number(stats.holds.expired)} expired`)] : []),
      term('Last denied', time(stats.last_denied)), term('Written at', code(rule.location)),
      ...(rule.adjusted ? [term('Limits as written', rule.written), term('Adjusted by', rule.adjusted.map((a) => el('div', {}, code(a.by), `: ${a.set}`)))] : []),
      rule.overrides ? term('Overrides', `${rule.overrides.location}: ${rule.overrides.limits}`) : [],
      term('Name in metrics', code(rule.path))),
  ];
}

const term = (name, value) => [el('dt', {}, name), el('dd', {}, value)];
