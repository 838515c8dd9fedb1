// The form that makes or changes one rule.

import { algorithms } from './algorithms.js';
import * as api from './api.js';
import { $, el, show } from './dom.js';
import { limitsOf } from './descriptor.js';

const units = ['', 'second', 'minute', 'hour', 'day', 'week', 'month', 'year'];

// The fields of a limit that have an input. Others stay as they are.
const limitFields = [
  { key: 'algorithm', choices: ['', ...algorithms] },
  { key: 'requests_per_unit', type: 'number' },
  { key: 'unit', choices: units },
  { key: 'window', placeholder: '90s, or calendar month Europe/Berlin', text: windowText, read: readWindow },
  { key: 'burst', type: 'number' },
  { key: 'denied_hits', choices: ['', 'count', 'drop', 'drain'] },
  { key: 'on_backend_error', choices: ['', 'error', 'allow', 'deny', 'local'] },
  { key: 'name' },
  { key: 'strict', type: 'checkbox' },
  { key: 'shadow_mode', type: 'checkbox' },
  { key: 'unlimited', type: 'checkbox' },
];
const nodeFields = ['shadow_mode', 'quota_mode', 'share_threshold', 'detailed_metric'].map((key) => ({ key, type: 'checkbox' }));

// windowText and readWindow write a window of a calendar in one line and read it:
// calendar, its name, a time zone, and the day on which it starts.
function windowText(window) {
  if (typeof window !== 'object') return window;
  return ['calendar', window.calendar, window.timezone, window.starts].filter((part) => part !== undefined).join(' ');
}

function readWindow(text) {
  const [first, calendar, timezone, starts] = text.trim().split(/\s+/);
  return first === 'calendar' ? { calendar, timezone, starts } : text;
}

// edit opens the form on a rule, or on a new one. changed is called after a
// change came into force.
export function edit(rule, etag, changed) {
  const node = structuredClone(rule?.rule ?? { rate_limit: { algorithm: 'token_bucket', unit: 'minute', requests_per_unit: 100 } });
  delete node.descriptors;
  const state = {
    domain: rule?.domain ?? '',
    entries: rule ? rule.entries.map((e) => ({ ...e })) : [{ key: '', value: '' }],
    node,
    limits: limitsOf(node),
    etag,
    inputs: new Map(), // path in the body → input
  };
  const message = el('div', { role: 'alert', class: 'error' });
  const form = el('form', { novalidate: true, onsubmit: (event) => { event.preventDefault(); save(); } });
  let timer;
  form.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => submit(true), 300);
  });

  async function save() {
    clearTimeout(timer);
    if (await submit(false)) {
      $('editor').close();
      changed();
    }
  }

  let attempt = 0;
  async function submit(dryRun) {
    const mine = ++attempt;
    let failure;
    try {
      await api.apply(body(state), { dryRun, etag: state.etag });
    } catch (e) {
      failure = e;
    }
    if (mine !== attempt) return false; // a later one is on its way
    message.replaceChildren();
    for (const input of state.inputs.values()) mark(input, '');
    if (!failure) return true;
    const rest = [];
    for (const p of failure.problem?.problems ?? []) {
      const input = find(state.inputs, p.path ?? '');
      const text = p.remedy ? `${p.what}; ${p.remedy}` : p.what;
      if (input) mark(input, text);
      else rest.push(p.path ? `${p.path}: ${text}` : text);
    }
    if (!failure.problem?.problems?.length) rest.push(failure.message);
    message.replaceChildren(...rest.map((text) => el('p', {}, text)));
    if (!dryRun) form.querySelector('[aria-invalid=true]')?.focus();
    return false;
  }

  state.inputs.clear();
  form.append(...parts(state, Boolean(rule)), message,
    el('button', { class: 'main' }, 'Save'),
    rule?.source === 'admin' && el('button', {
      type: 'button', id: 'delete',
      onclick: async () => {
        try {
          await api.remove(rule.key, state.etag);
          $('editor').close();
          changed();
        } catch (e) {
          message.replaceChildren(el('p', {}, e.message));
        }
      },
    }, 'Delete') || '');
  show($('editor'), rule ? `Edit ${rule.domain}: ${rule.path}` : 'New rule',
    rule && rule.source !== 'admin' && el('p', {}, `This rule is from ${rule.location}. What you save here is in force instead of it.`),
    rule?.adjusted && el('p', { id: 'adjusted' }, `The limits below are as written. Once saved, they are adjusted again: ${rule.adjusted.map((a) => `${a.by} (${a.set})`).join(', ')}.`), form);
  form.querySelector('input:not([readonly]), select')?.focus();
}

function parts(state, fixed) {
  const list = [field(state, 'domain', { key: 'domain', label: 'domain', readonly: fixed, list: 'domains' }, state.domain, (v) => { state.domain = v; })];
  const path = el('fieldset', {}, el('legend', {}, 'Descriptor'));
  const fill = () => {
    path.replaceChildren(el('legend', {}, 'Descriptor'));
    let at = '';
    state.entries.forEach((e, i) => {
      at += `${i ? '.' : ''}descriptors[0]`;
      path.append(
        field(state, `${at}.key`, { key: 'key', readonly: fixed }, e.key, (v) => { e.key = v; }),
        field(state, `${at}.value`, { key: 'value', readonly: fixed, placeholder: 'any; * as wildcard' }, e.value ?? '', (v) => { e.value = v; }));
    });
    if (!fixed) path.append(el('button', { type: 'button', onclick: () => { state.entries.push({ key: '', value: '' }); fill(); } }, 'Deeper'));
  };
  fill();
  list.push(path);
  const at = () => state.entries.map(() => 'descriptors[0]').join('.');
  state.limits.forEach((limit, i) => {
    const where = state.node.rate_limits ? `rate_limits[${i}]` : 'rate_limit';
    const box = el('fieldset', {}, el('legend', {}, state.node.rate_limits ? `Limit ${i + 1}` : 'Limit'));
    for (const f of limitFields) {
      box.append(field(state, () => `${at()}.${where}.${f.key}`, f, limit[f.key], (v) => assign(limit, f, v)));
    }
    list.push(box);
  });
  const modes = el('fieldset', {}, el('legend', {}, 'Modes'));
  for (const f of nodeFields) {
    modes.append(field(state, () => `${at()}.${f.key}`, f, state.node[f.key], (v) => assign(state.node, f, v)));
  }
  list.push(modes);
  return list;
}

function assign(object, f, value) {
  if (value === '' || value === false) delete object[f.key];
  else if (f.read) object[f.key] = f.read(value);
  else object[f.key] = f.type === 'number' && value.trim() !== '' && Number.isFinite(Number(value)) ? Number(value) : value;
}

let ids = 0;

// field makes a labelled input with room for its error. A path may be a
// function, for it changes with the depth.
function field(state, path, f, value, set) {
  const id = `field-${++ids}`;
  const common = { id, 'aria-describedby': `${id}-error`, 'data-field': f.key };
  const input = f.choices
    ? el('select', common, f.choices.map((c) => el('option', { value: c }, c || '–')))
    : el('input', { ...common, type: f.type === 'checkbox' ? 'checkbox' : 'text', inputmode: f.type === 'number' && 'numeric', readonly: f.readonly, placeholder: f.placeholder, list: f.list, autocomplete: 'off' });
  if (f.type === 'checkbox') input.checked = Boolean(value);
  else input.value = (f.text ? f.text(value) : value) ?? '';
  input.addEventListener('input', () => set(f.type === 'checkbox' ? input.checked : input.value));
  const text = el('span', {}, (f.label ?? f.key).replaceAll('_', ' '));
  const error = el('span', { id: `${id}-error`, class: 'error' });
  state.inputs.set(path, input);
  return f.type === 'checkbox'
    ? el('label', { class: 'check' }, input, text, error)
    : el('label', {}, text, input, error);
}

// find returns the input of a path, or of the nearest one above it.
function find(inputs, path) {
  const resolved = new Map([...inputs].map(([p, input]) => [typeof p === 'function' ? p() : p, input]));
  for (let p = path; p; p = p.replace(/(\.|^)[^.]*$/, '')) {
    if (resolved.has(p)) return resolved.get(p);
  }
  return undefined;
}

function mark(input, text) {
  const error = $(`${input.id}-error`);
  if (error) error.textContent = text;
  if (text) input.setAttribute('aria-invalid', 'true');
  else input.removeAttribute('aria-invalid');
}

// body is the domain with just this rule, in the grammar of rule files.
function body(state) {
  let inner;
  for (const e of [...state.entries].reverse()) {
    const here = inner ? { descriptors: [inner] } : state.node;
    const { key, value, ...rest } = here;
    inner = { key: e.key, ...(e.value ? { value: e.value } : {}), ...rest };
  }
  return { domain: state.domain, descriptors: [inner] };
}
