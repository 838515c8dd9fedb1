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

export function table(head, rows) {
  return el('table', {},
    el('thead', {}, el('tr', {}, head.map((h) => el('th', { scope: 'col', class: h.number && 'number' }, h.text ?? h)))),
    el('tbody', {}, rows));
}

const svgNamespace = 'http://www.w3.org/2000/svg';

// plot draws allowed calls with denied ones on top, one bar a second.
export function plot(history, size = '') {
  const svg = document.createElementNS(svgNamespace, 'svg');
  svg.setAttribute('class', `plot ${size}`);
  svg.setAttribute('viewBox', `0 0 ${history.allowed.length} 10`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  svg.setAttribute('aria-label', `last minute: ${sum(history.allowed)} allowed, ${sum(history.denied)} denied`);
  const most = Math.max(1, ...history.allowed.map((a, i) => a + history.denied[i]));
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
    const below = allowed / most * 10;
    bar('a', i, 0, below);
    bar('d', i, below, history.denied[i] / most * 10);
  });
  return svg;
}

export const number = (n) => n.toLocaleString('en', { maximumFractionDigits: n < 10 ? 1 : 0 });
export const time = (text) => (text ? new Date(text).toLocaleString() : 'never');

export function seconds(n) {
  if (n === null) return 'never';
  if (n < 1) return `${Math.round(n * 1000)} ms`;
  if (n < 120) return `${number(n)} s`;
  if (n < 7200) return `${number(n / 60)} min`;
  return `${number(n / 3600)} h`;
}

// show opens a dialog with a title and a way to close it.
export function show(dialog, title, ...children) {
  dialog.replaceChildren(
    el('button', { class: 'close', type: 'button', onclick: () => dialog.close() }, 'Close'),
    el('h2', { id: `${dialog.id}-title` }, title),
    ...children.flat().filter(Boolean));
  if (!dialog.open) dialog.showModal();
}
