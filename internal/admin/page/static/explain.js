// Why a request would pass or be refused: which rule applies to each of its
// descriptors, and what is left.

import * as api from './api.js';
import { href, replace } from './address.js';
import { code, counted, el, number, seconds, section } from './dom.js';
import { descriptorText, entryText, limitsOf, parseDescriptors } from './descriptor.js';
import { known, ruleAt } from './known.js';

export function explainView({ params }) {
  const domain = el('input', { id: 'explain-domain', list: 'domains', required: true, autocomplete: 'off' });
  const text = el('textarea', { id: 'explain-descriptors', required: true, rows: 3, autocomplete: 'off', spellcheck: 'false', placeholder: 'user=alice,path=/x', 'aria-describedby': 'explain-help' });
  const out = el('div', { id: 'explanation', 'aria-live': 'polite' });
  domain.value = params.get('domain') ?? '';
  text.value = params.getAll('descriptor').join('\n');

  async function explain(event) {
    event?.preventDefault();
    const descriptors = parseDescriptors(text.value);
    replace('explain', { domain: domain.value, descriptor: descriptors.map(descriptorText) });
    try {
      const parts = await Promise.all(descriptors.map((entries) => look(domain.value, entries)));
      out.replaceChildren(...whole(parts), ...parts.map((p) => part(p, reset)));
    } catch (failure) {
      out.replaceChildren(el('p', { class: 'error' }, failure.message));
    }
  }

  async function reset(entries) {
    try {
      await api.reset({ domain: domain.value, entries });
      await explain();
      text.focus();
    } catch (failure) {
      out.append(el('p', { class: 'error' }, failure.message));
    }
  }

  let begun = false;
  return {
    title: 'Explain',
    node: section('Explain a request', el('form', { id: 'explain', onsubmit: explain },
      el('label', {}, 'Domain', domain),
      el('label', { class: 'wide' }, 'Descriptors', text),
      el('button', { class: 'main' }, 'Explain'),
      el('small', { id: 'explain-help' }, 'One descriptor a line, its entries in their order as key=value,key=value. Nothing is charged.')), out),
    update() {
      if (!begun && domain.value && text.value) explain();
      begun = true;
    },
  };
}

// look asks what applies to a descriptor, and how much is left of it.
async function look(domain, entries) {
  const { data: explanation } = await api.explain(domain, entries);
  const applying = [explanation.rule, ...(explanation.limits ?? [])].filter(Boolean);
  const found = applying.length && known.replica.values ? (await api.counters(domain, descriptorText(entries))).data.counters : [];
  const counters = found.map((c) => {
    const rule = applying.find((r) => r.limits.some((l) => l.counter_key === c.counter)) ?? applying[0];
    const limit = rule.limits.find((l) => l.counter_key === c.counter);
    return { ...c, rule, limit: limit?.limit ?? c.algorithm, shadow: Boolean(rule.shadow_mode || limit?.shadow_mode) };
  });
  return { entries, explanation, applying, rules: applying.map((r) => ruleAt(domain, r.path)).filter(Boolean), counters };
}

// whole tells of more than one descriptor what becomes of their request.
function whole(parts) {
  const replaced = new Set(parts.flatMap((p) => p.rules).flatMap((r) => limitsOf(r.rule)).flatMap((l) => l.replaces ?? []).map((r) => r.name));
  const [required, quotas] = [[], []];
  for (const { counters } of parts) {
    for (const c of counters) c.replaced = Boolean(c.name) && replaced.has(c.name);
    const enforced = counters.filter((c) => !c.replaced && !c.shadow);
    const quota = enforced.filter((c) => c.rule.quota_mode);
    required.push(...enforced.filter((c) => !c.rule.quota_mode && !c.allowed));
    if (quota.length) quotas.push(quota.filter((c) => !c.allowed));
  }
  if (parts.length < 2 || !known.replica.values) return [];
  const refusing = [...required, ...(quotas.every((over) => over.length) ? quotas.flat() : [])]; // a quota alone refuses nothing
  return [el('p', {}, el('strong', { class: refusing.length ? 'denied' : 'allowed' }, refusing.length ? 'The request would be refused' : 'The request would pass'),
    refusing.length ? [' by ', code([...new Set(refusing.map((c) => c.rule.path))].join(', '))] : '', '.')];
}

function part({ entries, explanation: e, applying, counters }, reset) {
  const name = ({ path }) => {
    const rule = ruleAt(e.domain, path);
    return rule ? el('a', { href: href(`rules/${rule.key}`) }, code(path)) : code(path);
  };
  return el('article', { class: 'part' }, el('h3', {}, code(descriptorText(entries))),
    applying.length
      ? el('p', {}, el('strong', {}, applying.map((r) => ['Rule ', name(r), ' applies. ']).flat()))
      : el('p', {}, el('strong', {}, 'No limit applies.'), ' ', e.reason, e.nearest?.length ? ` Nearest: ${e.nearest.join(', ')}.` : ''),
    // Where only rules on sets apply, the way through the tree explains nothing.
    e.rule || !applying.length ? el('ol', { class: 'levels' }, (e.levels ?? []).map(level)) : '',
    applying.some((r) => r.settles) ? el('p', {}, 'It settles: what its request holds goes back, and its hits are charged.') : '',
    (e.unmet ?? []).filter((u) => u.why || !applying.length).map((u) => el('p', {}, 'Rule ', name(u), ' does not apply',
      u.why ? `: ${u.why}.` : [', by the condition on ', code(u.keys.join(', ')), '.'])),
    applying.flatMap((r) => r.limits).filter((l) => l.adjusted).map((l) => el('p', {}, `${l.limit}: adjusted by `, code(l.adjusted.map((a) => a.by).join(', ')), `, written as ${l.written}.`)),
    counters.map((c) => el('p', {},
      el('span', { class: c.allowed ? 'allowed' : 'denied' }, c.allowed ? 'would pass' : 'over limit'),
      c.shadow ? ', in shadow mode' : '', c.replaced ? ', replaced in this request' : '',
      ` · ${c.limit}: ${number(c.remaining)} left${c.held === undefined ? '' : `, ${counted(c.held, 'request')} ${c.held === 1 ? 'holds' : 'hold'}`}${c.reset_after_seconds > 0 ? `, resets in ${seconds(c.reset_after_seconds)}` : ''} · counter `,
      code(c.counter))),
    counters.length && !known.replica.read_only ? el('button', { type: 'button', class: 'reset', onclick: () => reset(entries) }, counters.length > 1 ? 'Reset these counters' : 'Reset this counter') : '');
}

function level(l) {
  const won = l.tried.find((t) => t.found);
  return el('li', {}, code(entryText(l.entry)), ': ',
    l.skipped ? 'skipped: the limit follows it' : won ? `${won.how.replace('_', ' ')} at ${won.found.pos}` : 'nothing matches',
    l.nearest?.length ? [' (nearest: ', code(l.nearest.map(entryText).join(', ')), ')'] : '');
}
