// How loading rules has gone.

import { code, el, number, section, table, time, update } from './dom.js';
import { known } from './known.js';

export function reloadsView() {
  const [sources, history] = [el('div', { id: 'sources' }), el('div', { id: 'reloads' })];
  return {
    title: 'Reloads',
    node: el('div', {}, section('Sources of rules', sources), section('Reloads', history)),
    update() {
      const { sources: from, history: lines } = known.reloads;
      update(sources, from, () => table(['Source', 'State', 'In force', 'Last all good', { text: 'Failures', number: true }, 'Problems'], (from ?? []).map((s) => el('tr', {},
        el('td', { class: 'first' }, s.source), el('td', { class: s.state === 'bad' && 'error' }, s.state), el('td', {}, s.in_force ? 'yes' : 'no'),
        el('td', {}, time(s.last_success)), el('td', {}, number(s.failures)), el('td', {}, texts(s.problems, s.omitted))))));
      update(history, lines, () => (lines?.length
        ? table(['When', 'Outcome', { text: 'Rules', number: true }, 'Problems and warnings'], lines.map((r) => el('tr', {},
          el('td', { class: 'first' }, time(r.time)), el('td', { class: ['failed', 'partly'].includes(r.outcome) && 'error' }, r.outcome),
          el('td', {}, number(r.rules)), el('td', {}, texts([...(r.problems ?? []), ...(r.warnings ?? [])], r.omitted)))))
        : el('p', {}, 'None yet.')));
    },
  };
}

const texts = (list = [], omitted = 0) => [...list.map((t) => el('div', {}, code(t))), omitted ? el('div', {}, `and ${number(omitted)} more`) : ''];
