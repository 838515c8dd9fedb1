// The top of the page: which replica this is, how it is, and what is wrong with it.

import { href } from './address.js';
import { $, between, code, counted, el, number, time, update } from './dom.js';
import { known } from './known.js';

export function header() {
  facts();
  update($('banners'), banners(), () => banners().map(({ bad, text, lines = [], to }) => el('div', { class: `banner ${bad ? 'bad' : ''}` },
    el('strong', {}, text), to && [' ', el('a', { href: to.href }, to.text)], lines.map((l) => el('div', {}, code(l))))));
}

function facts() {
  const { replica: r, reloads: { last, in_force_since: since } } = known;
  const fact = (name, value, bad) => el('div', {}, el('dt', {}, name), el('dd', { class: bad && 'error' }, value));
  $('facts').replaceChildren(
    fact('Replica', code(r.name)),
    fact('Version', code(r.version)),
    fact('Up', between(r.started, r.time)),
    fact('Store', `${r.store.name}, ${r.store.healthy ? 'well' : 'away'}`, !r.store.healthy),
    fact('Rules', since ? `${number(last.rules)} in ${counted(last.domains, 'domain')}, since ${time(since)}` : 'none yet', !since));
  let [allowed, denied] = [0, 0];
  for (const { rates } of known.stats.values()) {
    allowed += rates['1s'].allowed;
    denied += rates['1s'].denied;
  }
  const errors = known.service.backend_errors;
  $('state').textContent = `${number(allowed)} allowed/s, ${number(denied)} denied/s${errors ? `, ${counted(errors, 'backend error')}` : ''}`;
}

// banners are what an operator should not overlook, the worst first.
function banners() {
  const { replica, reloads, unmatched } = known;
  const list = [];
  if (!replica.store.healthy) list.push({ bad: true, text: `${replica.store.name} is away: on_backend_error decides.` });
  for (const s of reloads.sources ?? []) {
    if (s.state === 'bad') {
      const what = s.source === 'admin' ? 'Stored rules were set aside' : `Rules from ${s.source} are bad`;
      const partly = s.partial && s.source !== 'admin';
      list.push({
        bad: true, text: partly ? `Not all that ${s.source} rules say is in force.` : `${what}${s.in_force ? ': the last good ones stay.' : ', and there are no older ones.'}`,
        lines: s.problems ?? [], to: { href: href('reloads'), text: 'Reloads' },
      });
    } else if (s.state === 'waiting') list.push({ text: `There are no rules from ${s.source} yet.` });
  }
  if (reloads.last.generation > 0 && reloads.last.rules === 0) list.push({ bad: true, text: 'There are no rules: nothing is limited.' });
  if (!replica.serving) list.push({ bad: true, text: 'The service does not want requests: /healthcheck answers 503.' });
  if (unmatched.domains.length) {
    list.push({
      text: 'Requests ask for domains that have no rules, and pass:', lines: unmatched.domains.map((d) => d.domain),
      to: { href: href('live', { verdict: 'unmatched' }), text: 'Watch them' },
    });
  }
  return list;
}
