// Small helpers to make elements; text is always text, never markup.

export const $ = (id) => document.getElementById(id);

// el makes an element: attributes, on… listeners, then children.
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false || value === null) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'value' || key === 'checked') node[key] = value;
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter((c) => c !== undefined && c !== null && c !== false && c !== ''));
  return node;
}

// code is text that others have chosen. It can't turn the direction of what is around it.
export const code = (text) => el('bdi', { class: 'code' }, text);

// section has a heading that names it.
export function section(title, ...children) {
  const heading = el('h2', { id: `title-${++ids}` }, title);
  return el('section', { 'aria-labelledby': heading.id }, heading, ...children);
}
let ids = 0;

// A column is a name, or {text, number}.
const columns = (head) => el('thead', {}, el('tr', {}, head.map((h) => el('th', { scope: 'col', class: h.number && 'number' }, h.text ?? h))));

// labelled gives cells the names of their columns, which a phone shows beside them.
function labelled(row, head) {
  head.forEach((h, i) => {
    row.cells[i]?.classList.toggle('number', Boolean(h.number));
    if (h.text ?? h) row.cells[i]?.setAttribute('data-label', h.text ?? h);
  });
  return row;
}

export const table = (head, rows) => el('table', {}, columns(head), el('tbody', {}, rows.map((r) => labelled(r, head))));

// list is a table whose rows stay from one time to the next, and with them focus and
// selection. make returns a row and what paints it anew for an item.
export function list(head, make) {
  const body = el('tbody');
  let rows = new Map(); // item's key → row
  return {
    node: el('table', {}, columns(head), body),
    // show holds rows in place if hold is set and somebody is about to use one.
    show(items, hold = false) {
      const before = rows;
      rows = new Map(items.map((item) => [item.key, before.get(item.key) ?? make(item)]));
      for (const [key, { row }] of before) if (!rows.has(key)) row.remove();
      items.forEach((item) => rows.get(item.key).paint(item));
      const wanted = [...rows.values()].map(({ row }) => labelled(row, head));
      if (hold && body.matches(':hover, :focus-within')) body.append(...wanted.filter((row) => row.parentNode !== body));
      else if (wanted.some((row, i) => row !== body.children[i])) body.replaceChildren(...wanted);
    },
  };
}

// update replaces children if what they are made of has changed, so that nothing is
// read out twice, or moved under a hand.
export function update(node, from, make) {
  const signature = JSON.stringify(from);
  if (node.dataset.signature === signature) return;
  node.dataset.signature = signature;
  node.replaceChildren(...[make()].flat().filter(Boolean));
}

const svgNamespace = 'http://www.w3.org/2000/svg';

// plot draws allowed calls with those on top that shadow mode let through and those that
// were denied, one bar a second.
export function plot(history, size = '') {
  const svg = document.createElementNS(svgNamespace, 'svg');
  svg.setAttribute('class', `plot ${size}`);
  svg.setAttribute('viewBox', `0 0 ${history.allowed.length} 10`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', `last minute: ${sum(history.allowed)} allowed, ${refusals(history)}`);
  const most = Math.max(1, ...history.allowed.map((a, i) => a + history.shadow_denied[i] + history.denied[i]));
  const bar = (kind, i, from, height) => {
    if (!height) return;
    const rect = document.createElementNS(svgNamespace, 'rect');
    rect.setAttribute('class', kind);
    rect.setAttribute('x', i);
    rect.setAttribute('y', 10 - from - height);
    rect.setAttribute('width', .9);
    rect.setAttribute('height', height);
    svg.append(rect);
  };
  history.allowed.forEach((allowed, i) => {
    let top = 0;
    for (const [kind, calls] of [['a', allowed], ['s', history.shadow_denied[i]], ['d', history.denied[i]]]) {
      bar(kind, i, top, calls / most * 10);
      top += calls / most * 10;
    }
  });
  return svg;
}

// refusals are those of the last minute, and those in shadow mode if there are any.
export function refusals(history) {
  const shadow = sum(history.shadow_denied);
  return `${number(sum(history.denied))} denied${shadow ? `, ${number(shadow)} in shadow mode` : ''}`;
}

export const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
export const number = (n) => n.toLocaleString('en', { maximumFractionDigits: n < 10 ? 1 : 0 });
export const counted = (n, one) => `${number(n)} ${one}${n === 1 ? '' : 's'}`;
export const time = (text) => (text ? new Date(text).toLocaleString() : 'never');

export function seconds(n) {
  if (n === null) return 'never';
  if (n < 1) return `${Math.round(n * 1000)} ms`;
  if (n < 120) return `${number(n)} s`;
  if (n < 7200) return `${number(n / 60)} min`;
  if (n < 172800) return `${number(n / 3600)} h`;
  return `${number(n / 86400)} days`;
}

// between is how long it is from one time to another, in whole seconds or more.
export function between(from, to) {
  const n = Math.max(0, Math.round((new Date(to) - new Date(from)) / 1000));
  return n ? seconds(n) : '0 s';
}

// show opens a dialog with a title and a way to close it.
export function show(dialog, title, ...children) {
  dialog.replaceChildren(
    el('button', { class: 'close', type: 'button', onclick: () => dialog.close() }, 'Close'),
    el('h2', { id: `${dialog.id}-title` }, title),
    ...children.flat().filter(Boolean));
  if (!dialog.open) dialog.showModal();
}
