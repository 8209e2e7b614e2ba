// Plan against what was done, place by place: the plan is a thin strip above, what was done stands below it.

import { h, put, s, say } from './dom.js';
import { key, middle, outcome, time } from './words.js';

const LABEL = 112;
const PLAN = 5;
const AXIS = 24;
const LETTER = 6.9;

/** Puts what overlaps into different lanes, each into the first that is free. */
export function lanes(spans) {
  spans.sort((a, b) => a.from - b.from || a.to - b.to);
  const ends = [];
  for (const span of spans) {
    let lane = ends.findIndex((end) => end <= span.from);
    if (lane < 0) lane = ends.length;
    ends[lane] = Math.max(span.to, span.from + 1);
    span.lane = lane;
  }
  return ends.length;
}

function rowsOf(run, end) {
  const rows = new Map();
  const row = (place) => {
    if (!rows.has(place)) rows.set(place, { place, plan: [], done: [] });
    return rows.get(place);
  };
  for (const task of run.tasks) {
    for (const place of task.places) row(place).plan.push({ task, from: task.start_ms, to: task.finish_ms });
    task.attempts.forEach((attempt, i) => {
      const from = Date.parse(attempt.started) - run.started;
      const to = attempt.finished ? Date.parse(attempt.finished) - run.started : end;
      const again = i < task.attempts.length - 1 || task.state !== 'succeeded';
      const state = !attempt.outcome ? 'running' : attempt.outcome === 'succeeded' ? 'succeeded'
        : attempt.outcome === 'interrupted' ? 'interrupted' : 'failed';
      const places = attempt.devices.length ? attempt.devices : [`${attempt.node}/cpu`];
      for (const place of places) row(place).done.push({ task, from, to: Math.max(to, from), state, attempt, again });
    });
  }
  const isHost = (place) => place.endsWith('/cpu');
  const sorted = [...rows.values()].sort((a, b) => isHost(a.place) - isHost(b.place)
    || a.place.localeCompare(b.place, undefined, { numeric: true }));
  for (const one of sorted) [one.plans, one.lanes] = [lanes(one.plan), lanes(one.done)];
  return sorted;
}

/** Round times for the axis, at most so many. */
function ticks(span, most) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 18e5, 36e5, 72e5, 144e5, 432e5, 864e5];
  const step = steps.find((one) => span / one <= most) || Math.ceil(span / most / 864e5) * 864e5;
  const all = [];
  for (let at = 0; at <= span; at += step) all.push(at);
  return all;
}

const short = (ms) => (ms === 0 ? '0' : ms < 1000 ? `${ms} ms` : ms < 60000 ? `${ms / 1000} s` : time(ms).replace(/ 00 [sm]$/, ''));

/** A task's name in its bar, if enough of it has room there to tell it apart. */
function name(words, left, top, width) {
  const room = Math.floor((width - 10) / LETTER);
  return room >= Math.min(words.length, 8) ? s('text', { class: 'in', x: left + 5, y: top + 13 }, middle(words, room)) : null;
}

export function gantt(run, select) {
  let zoom = 1;
  const caption = h('p', { class: 'soft' });
  const holder = h('div', { class: 'scroll gantt', tabindex: '0', role: 'region', 'aria-label': 'Timeline, scrollable' });
  const button = (word, label, to) => h('button', { type: 'button', class: 'quiet', 'aria-label': label,
    on: { click: () => { zoom = Math.min(64, Math.max(1, to())); draw(); } } }, word);
  const node = h('section', { class: 'sheet', 'aria-labelledby': 'timeline' },
    h('div', { class: 'title' }, h('h2', { id: 'timeline' }, 'Timeline'), caption,
      h('div', { class: 'tools' }, button('−', 'Show more time', () => zoom / 2), button('+', 'Show less time', () => zoom * 2))),
    holder,
    h('p', { class: 'soft keys' }, key('plan', 'planned'), key('critical', 'planned, critical'),
      ['succeeded', 'running', 'failed', 'interrupted'].map((state) => key(`of-${state}`, state))));

  function draw() {
    const end = Math.max(1, run.end());
    const rows = rowsOf(run, end);
    const span = Math.max(end, run.makespan, 1);
    const wide = Math.max(320, (holder.clientWidth || 800)) * zoom;
    const x = (ms) => LABEL + ((wide - LABEL - 12) * Math.min(ms, span)) / span;
    let y = AXIS;
    const parts = [];
    for (const row of rows) {
      // Many at a time get thin lines; a name needs a high one.
      const high = row.lanes <= 6 ? 18 : row.lanes <= 16 ? 10 : row.lanes <= 40 ? 6 : 3;
      const gap = high > 6 ? 2 : 1;
      const strip = row.plans <= 8 ? PLAN : 2;
      const planned = row.plans * (strip + 1);
      const height = planned + 3 + Math.max(1, row.lanes) * (high + gap);
      parts.push(s('rect', { class: 'band', x: LABEL, y, width: wide - LABEL - 12, height }),
        s('text', { class: 'place', x: 0, y: y + 13 }, s('title', {}, row.place), middle(row.place, 16)));
      for (const one of row.plan) {
        parts.push(s('rect', { class: `plan${one.task.critical ? ' critical' : ''}`, x: x(one.from), y: y + one.lane * (strip + 1),
          width: Math.max(1, x(one.to) - x(one.from) - 0.5), height: strip, rx: strip > 2 ? 1.5 : 0 }));
      }
      for (const one of row.done) {
        const [left, right] = [x(one.from), x(one.to)];
        const width = Math.max(1.5, right - left - 0.5);
        const top = y + planned + 3 + one.lane * (high + gap);
        const words = `${one.task.name}${one.attempt.number > 1 ? `, attempt ${one.attempt.number}` : ''}: ${outcome(one.attempt.outcome)}, ${time(one.to - one.from)}`;
        parts.push(s('g', { class: 'span', on: { click: () => select(one.task.index) } }, s('title', {}, words),
          s('rect', { class: `done of-${one.state}`, x: left, y: top, width, height: high, rx: high > 6 ? 3 : 0 }),
          high > 12 ? name(one.task.name, left, top, width) : null));
      }
      y += height + 10;
    }
    const bottom = y - 4;
    const axis = ticks(span, Math.max(2, Math.floor((wide - LABEL) / 90))).map((at) => [
      s('path', { class: 'grid', d: `M${x(at)} ${AXIS - 4}V${bottom}` }),
      s('text', { class: 'tick', x: x(at), y: 13, 'text-anchor': at === 0 ? 'start' : x(at) > wide - 40 ? 'end' : 'middle' }, short(at))]);
    const marks = [];
    if (run.state === 'running') marks.push(s('path', { class: 'now', d: `M${x(end)} ${AXIS - 6}V${bottom}` }));
    if (run.makespan) marks.push(s('path', { class: 'goal', d: `M${x(run.makespan)} ${AXIS - 6}V${bottom}` }, s('title', {}, `planned end, ${time(run.makespan)}`)));
    const words = `Planned to take ${time(run.makespan)}; ${run.state === 'running' ? 'running for' : 'took'} ${time(end)}.`;
    const text = `${words} ${rows.map((row) => `${row.place}: ${row.done.length} attempts`).join('; ')}. The table of tasks has the same in numbers.`;
    put(holder, s('svg', { width: wide, height: bottom + 4, role: 'img', 'aria-label': text }, parts.length ? [axis[0] && axis.flat().filter((one) => one.tagName === 'path'), parts, axis.flat().filter((one) => one.tagName === 'text'), marks] : null));
    say(caption, words);
  }

  const watcher = new ResizeObserver(() => draw());
  watcher.observe(holder);
  return { node, draw, leave: () => watcher.disconnect() };
}
