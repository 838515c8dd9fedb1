// The list of rules: filtered, ordered, and a page of it at a time.

import { replace } from './address.js';
import { counted, el, list, number, plot, section, update } from './dom.js';
import { limitsOf, ruleLink } from './descriptor.js';
import { edit } from './editor.js';
import { known, refresh } from './known.js';

const perPage = 50;

export function rulesView({ params }) {
  let page = Math.max(1, Number(params.get('page')) || 1);
  const rows = list(['Rule', 'Limit', { text: 'Allowed/s', number: true }, { text: 'Denied/s', number: true }, 'Last minute', 'From', ''], row);
  const again = () => {
    page = 1;
    draw(false);
  };
  const filter = el('input', { id: 'filter', type: 'search', autocomplete: 'off', placeholder: 'domain, key, value, name', oninput: again });
  filter.value = params.get('filter') ?? '';
  const order = el('select', { id: 'order', onchange: again },
    [['', 'as written'], ['denied', 'most denied in the last minute'], ['allowed', 'most allowed in the last minute']].map(([value, text]) => el('option', { value }, text)));
  order.value = params.get('order') ?? '';
  const add = el('button', { id: 'new', type: 'button', onclick: () => edit(null, known.etag, refresh) }, 'New rule');
  const fixed = el('p', { id: 'fixed' }, 'Rules can\'t be changed here: the service has no place to keep them (', el('code', {}, '--admin-rules-file'), ', or Redis), or this address is read-only.');
  const count = el('span', { role: 'status' });
  const turn = (by) => () => {
    page += by;
    draw(false);
    rows.node.scrollIntoView();
  };
  const [previous, next] = [el('button', { type: 'button', onclick: turn(-1) }, 'Previous'), el('button', { type: 'button', onclick: turn(1) }, 'Next')];
  const where = el('span');
  const pages = el('nav', { class: 'bar', 'aria-label': 'Pages of rules' }, previous, where, next);

  function draw(hold) {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = known.rules.filter((r) => words.every((w) => r.text.includes(w)));
    const by = order.value;
    const rate = (r) => known.stats.get(r.key)?.rates['1m'][by] ?? 0;
    if (by) found.sort((a, b) => rate(b) - rate(a));
    const last = Math.max(1, Math.ceil(found.length / perPage));
    page = Math.min(page, last);
    rows.show(found.slice((page - 1) * perPage, page * perPage).map((rule) => ({ key: rule.key, rule, stats: known.stats.get(rule.key) })), hold);
    const text = words.length ? `${number(found.length)} of ${counted(known.rules.length, 'rule')}` : counted(known.rules.length, 'rule');
    if (count.textContent !== text) count.textContent = text;
    pages.hidden = last === 1;
    where.textContent = `Page ${page} of ${last}`;
    previous.disabled = page === 1;
    next.disabled = page === last;
    if (!hold) replace('rules', { filter: filter.value, order: by, page: page > 1 && page });
  }

  return {
    title: 'Rules',
    node: section('Rules', el('div', { class: 'bar' },
      el('label', {}, 'Filter', filter), el('label', {}, 'Order', order), add, count), fixed, el('div', { id: 'rules' }, rows.node), pages),
    update() {
      add.hidden = !known.writable;
      fixed.hidden = known.writable;
      draw(true);
    },
  };
}

// editable reports whether the form can change a rule: it knows trees of single values, and
// limits that are numbers.
export const editable = (rule) => known.writable && rule.entries.length > 0 && !rule.entries.some((e) => e.values)
  && !limitsOf(rule.rule).some((l) => typeof l.requests_per_unit === 'object');

// editButton opens the form on a rule as it is then.
export function editButton({ key, domain, path }) {
  return el('button', { type: 'button', 'aria-label': `Edit ${domain} ${path}`, onclick: () => edit(known.byKey.get(key), known.etag, refresh) }, 'Edit');
}

function row({ rule }) {
  const limit = el('td', { class: 'wide' });
  const [allowed, denied, last, from] = Array.from({ length: 4 }, () => el('td'));
  const button = editButton(rule);
  return {
    row: el('tr', { 'data-key': rule.key }, el('td', { class: 'first' }, ruleLink(rule)), limit, allowed, denied, last, from, el('td', {}, button)),
    paint({ rule: { limits, written, adjusted, source, location, overrides }, stats: s }) {
      update(limit, [limits, written, adjusted], () => [limits, adjusted && ' ', adjusted && el('span', { class: 'tag', title: `${adjusted.map((a) => `${a.by}: ${a.set}`).join('\n')}\nas written: ${written}` }, 'adjusted')]);
      update(from, [source, location, overrides?.source], () => el('span', { class: `tag ${source}`, title: location }, overrides ? `${source}, overrides ${overrides.source}` : source));
      button.hidden = !editable(rule);
      if (!s) return;
      allowed.textContent = number(s.rates['1s'].allowed);
      denied.textContent = number(s.rates['1s'].denied);
      denied.classList.toggle('denied', s.rates['1s'].denied > 0);
      if (s.history) last.replaceChildren(plot(s.history));
    },
  };
}
