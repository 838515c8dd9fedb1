// How descriptors read in one line, and how rules do. The text of limits comes with
// the rules.

import { href } from './address.js';
import { code, el } from './dom.js';

export const limitsOf = (node) => node.rate_limits ?? (node.rate_limit ? [node.rate_limit] : []);

export const entryText = (e) => (e.value ? `${e.key}=${e.value}` : e.key);

// descriptorText is what parseDescriptors reads.
export const descriptorText = (entries) => entries.map((e) =>
  e.key.replace(/[\\,=\n]/g, '\\$&') + (e.value ? `=${e.value.replace(/[\\,\n]/g, '\\$&')}` : '')).join(',');

// parseDescriptors reads descriptors, one a line, each as key=value,key=value, with \
// before what stands for itself.
export function parseDescriptors(text) {
  const all = [[]];
  let entry;
  let field;
  const begin = () => {
    entry = { key: '' };
    field = 'key';
    all.at(-1).push(entry);
  };
  begin();
  for (let i = 0; i < text.length; i++) {
    let c = text[i];
    if (c === '\\' && i + 1 < text.length) c = text[++i];
    else if (c === '\n') {
      all.push([]);
      begin();
      continue;
    } else if (c === ',') {
      begin();
      continue;
    } else if (c === '=' && field === 'key') {
      entry.value = '';
      field = 'value';
      continue;
    }
    entry[field] += c;
  }
  return all.filter((entries) => entries.length > 1 || entries[0].key || entries[0].value);
}

// ruleName is how a rule is called: its domain, and the way that leads to it.
export function ruleName(rule) {
  const names = rule.entries.map(entryText);
  return [el('small', {}, code(rule.domain)), ' ',
    el('bdi', { class: 'code' }, names.slice(0, -1).map((n) => el('span', { class: 'above' }, `${n} › `)), names.at(-1) || rule.path)];
}

// ruleLink leads to the page of a rule.
export const ruleLink = (rule) => el('a', { href: href(`rules/${rule.key}`) }, ruleName(rule));

// explainLink leads to why a rule applies to a descriptor.
export const explainLink = (domain, entries, ...text) =>
  el('a', { href: href('explain', { domain, descriptor: descriptorText(entries) }) }, ...text);
