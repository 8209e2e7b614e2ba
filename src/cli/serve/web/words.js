// Times, sizes and states in words, the same on every page.

import { h, s } from './dom.js';

/** A duration in ms: `850 ms`, `12.3 s`, `4 m 05 s`, `2 h 10 m`. */
export function time(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return '';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const two = (n) => String(n).padStart(2, '0');
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
  return `${Math.floor(whole / 86400)} d ${two(Math.floor((whole % 86400) / 3600))} h`;
}

/** A duration in whole seconds, for what counts up or down. */
export const clock = (ms) => (ms < 60000 ? `${Math.max(0, Math.round(ms / 1000))} s` : time(ms));

/** A size in bytes: `21.3 GiB`. */
export function bytes(n) {
  if (n === null || n === undefined) return '';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  let size = n;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${n} B` : `${size.toFixed(1)} ${units[unit]}`;
}

/** A figure with about four places. */
export function figure(value) {
  if (value === null || value === undefined) return '';
  // A word for what is no number.
  if (typeof value === 'string') return value;
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** When something was, in the reader's own time. */
export const when = (text) => new Date(text).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

/** How long ago something was. */
export function ago(text, now = Date.now()) {
  const ms = now - Date.parse(text);
  if (ms < 10000) return 'just now';
  if (ms < 60000) return `${Math.floor(ms / 1000)} s ago`;
  if (ms < 3600000) return `${Math.floor(ms / 60000)} min ago`;
  if (ms < 86400000) return `${Math.floor(ms / 3600000)} h ago`;
  return `${Math.floor(ms / 86400000)} d ago`;
}

export const count = (n, word) => `${n.toLocaleString()} ${word}${n === 1 ? '' : 's'}`;

/** Cuts a name in its middle: its end tells matrix tasks apart. */
export function middle(name, most) {
  if (name.length <= most) return name;
  const end = Math.floor((most - 1) / 2);
  return `${name.slice(0, most - 1 - end)}…${name.slice(name.length - end)}`;
}

/** States in the order in which they are shown. */
export const STATES = ['running', 'failed', 'waiting', 'succeeded', 'cached', 'skipped'];

const SHAPES = {
  waiting: 'M6 1.8a4.2 4.2 0 1 0 0 8.4a4.2 4.2 0 1 0 0-8.4',
  running: 'M3.2 1.8v8.4l7-4.2z',
  succeeded: 'M1.8 6.4l2.9 2.9l5.5-6.4',
  cached: 'M9.6 4.2a4 4 0 1 0 .3 3M10 1.8v2.7h-2.7',
  failed: 'M2.4 2.4l7.2 7.2M9.6 2.4l-7.2 7.2',
  skipped: 'M2 6h8',
  interrupted: 'M3 3h6v6h-6z',
};

/** A state's sign: every state has a shape of its own, for those who tell its colour from no other. */
export function sign(state) {
  const solid = state === 'running' || state === 'interrupted';
  return s('svg', { class: `sign of-${state}${solid ? ' solid' : ''}`, viewBox: '0 0 12 12', width: 12, height: 12, 'aria-hidden': 'true' },
    s('path', { d: SHAPES[state] || SHAPES.waiting }));
}

/** A state as sign and word. */
export const badge = (state, word = state) => h('span', { class: `badge of-${state}` }, sign(state), word);

/** Counts of states as one bar, with the same in words for those who do not see it. */
export function bar(counts) {
  const order = ['succeeded', 'cached', 'running', 'failed', 'skipped', 'waiting'];
  const total = order.reduce((sum, state) => sum + (counts[state] || 0), 0) || 1;
  const words = order.filter((state) => counts[state]).map((state) => `${counts[state]} ${state}`).join(', ');
  return h('span', { class: 'bar', role: 'img', 'aria-label': words || 'no tasks', title: words },
    order.filter((state) => counts[state]).map((state) =>
      h('span', { class: `part of-${state}`, css: { 'flex-grow': counts[state] / total } })));
}

/** A colour and what it stands for, in a legend. */
export const key = (kind, words) => h('span', { class: 'pair' }, h('span', { class: `swatch ${kind}` }), words);

/** What an attempt's outcome means in words. */
export function outcome(code) {
  if (!code) return 'running';
  const [kind, of] = code.split(':');
  if (kind === 'exited') return `exit code ${of}`;
  if (kind === 'signalled') return `signal ${of}`;
  return kind.replaceAll('-', ' ');
}
