// What is refused now, whatever the domain, and what no rule limits.

import { href } from './address.js';
import { between, code, counted, el, list, number, plot, refusals, section, table, time, update } from './dom.js';
import { ruleLink } from './descriptor.js';
import { known } from './known.js';
import { live } from './live.js';

const most = 20; // rules that are shown

export function overview() {
  const refused = list(['Rule', 'Limit', { text: 'Denied/s', number: true }, { text: 'Shadow/s', number: true }, { text: 'Allowed/s', number: true }, 'Last minute', 'Last denied'], row);
  const none = el('p', {}, 'Nothing was refused in the last minute.');
  const more = el('a', { href: href('rules', { order: 'denied' }) });
  const unmatched = el('div');
  const watch = live({ verdict: 'over,shadow' });
  return {
    title: 'Overview',
    node: el('div', {}, section('Refused now', none, refused.node, more), unmatched, section('Decisions', watch.node)),
    close: watch.close,
    update() {
      const of = (key) => known.stats.get(key).rates['1m'];
      const now = [...known.stats.keys()].filter((key) => known.byKey.has(key) && of(key).denied + of(key).shadow_denied > 0)
        .sort((a, b) => of(b).denied - of(a).denied || of(b).shadow_denied - of(a).shadow_denied);
      none.hidden = now.length > 0;
      refused.node.hidden = !now.length;
      refused.show(now.slice(0, most).map((key) => ({ key, rule: known.byKey.get(key), stats: known.stats.get(key) })), true);
      more.hidden = now.length <= most;
      more.textContent = `and ${counted(now.length - most, 'other rule')}`;
      update(unmatched, known.unmatched, without);
      watch.update();
    },
  };
}

function row({ rule }) {
  const limit = el('td', { class: 'wide' });
  const [denied, shadow, allowed, last, when] = Array.from({ length: 5 }, () => el('td'));
  return {
    row: el('tr', { 'data-key': rule.key }, el('td', { class: 'first' }, ruleLink(rule)), limit, denied, shadow, allowed, last, when),
    paint({ rule: { limits }, stats: s }) {
      limit.textContent = limits;
      const now = s.rates['1s'];
      denied.textContent = number(now.denied);
      denied.classList.toggle('denied', now.denied > 0);
      shadow.textContent = number(now.shadow_denied);
      allowed.textContent = number(now.allowed);
      if (s.history) last.replaceChildren(plot(s.history), el('small', {}, refusals(s.history)));
      when.textContent = s.last_denied ? `${between(s.last_denied, known.replica.time)} ago` : '';
    },
  };
}

// without lists what met no rule since the start.
function without() {
  const { domains, descriptors } = known.unmatched;
  if (domains.length + descriptors.length === 0) return '';
  const rows = (missed, what) => missed.map((m) => el('tr', {},
    el('td', { class: 'first' }, code(m.domain)), el('td', {}, what), el('td', {}, number(m.count)), el('td', {}, time(m.last)),
    el('td', {}, el('a', { href: href('live', { domain: m.domain, verdict: 'unmatched' }), 'aria-label': `Watch ${m.domain}` }, 'Watch'))));
  return section('Not limited by any rule', table(['Domain', 'What', { text: 'Since the start', number: true }, 'Last', ''],
    [...rows(domains, 'requests: the domain has no rules'), ...rows(descriptors, 'descriptors that no rule matches')]));
}
