// Figures over time: one chart for each name, a line for each task.

import { ask, h, put, s, soon } from './dom.js';
import { clock, figure } from './words.js';

/** Up to so many tasks the curves of all of them are read. */
const MANY = 200;
const HUES = 8;
const HEIGHT = 150;
const [LEFT, RIGHT, TOP, BOTTOM] = [48, 10, 10, 20];

/** Draws lines `{name, ms, step, value, hue}` in one chart, so wide. */
export function chart(title, lines, wide, select) {
  const useSteps = lines.every((line) => line.step.every((step) => step !== null) && line.step.length > 1);
  const across = lines.map((line) => (useSteps ? line.step : line.ms));
  const all = (rows, of) => rows.reduce((best, row) => row.reduce((a, b) => of(a, b), best), rows[0][0]);
  const [from, to] = [all(across, Math.min), all(across, Math.max)];
  // Words stand for what is no number: the line has a gap there.
  const numbers = lines.flatMap((line) => line.value.filter((value) => typeof value === 'number'));
  let [low, high] = numbers.length ? [all([numbers], Math.min), all([numbers], Math.max)] : [0, 1];
  if (low === high) [low, high] = [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
  const x = (at) => LEFT + ((wide - LEFT - RIGHT) * (at - from)) / (to - from || 1);
  const y = (at) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (at - low)) / (high - low);
  const grid = [0, 0.5, 1].map((part) => {
    const at = low + part * (high - low);
    return [s('path', { class: 'grid', d: `M${LEFT} ${y(at)}H${wide - RIGHT}` }), s('text', { class: 'tick', x: LEFT - 6, y: y(at) + 4, 'text-anchor': 'end' }, Number(at.toPrecision(3)))];
  });
  const ends = [from, to].map((at, i) => s('text', { class: 'tick', x: x(at), y: HEIGHT - 5, 'text-anchor': i ? 'end' : 'start' },
    useSteps ? `step ${figure(at)}` : clock(at)));
  const drawn = lines.map((line, i) => {
    const is = line.value.map((value) => typeof value === 'number');
    const points = line.value.map((value, at) => (is[at] ? `${is[at - 1] ? 'L' : 'M'}${x(across[i][at]).toFixed(1)} ${y(value).toFixed(1)}` : ''));
    const last = line.value.length - 1;
    const end = is.lastIndexOf(true);
    return s('g', { class: `line hue-${line.hue % HUES}`, on: select ? { click: () => select(line.index) } : {} },
      s('title', {}, `${line.name}: ${figure(line.value[last])}`),
      points.length > 1 ? s('path', { d: points.join('') }) : null,
      end >= 0 ? s('circle', { cx: x(across[i][end]), cy: y(line.value[end]), r: 2.5 }) : null);
  });
  const words = lines.slice(0, 20).map((line) => `${line.name}: from ${figure(line.value[0])} to ${figure(line.value[line.value.length - 1])}`).join('; ');
  return h('figure', { class: 'curve' }, h('figcaption', {}, title),
    s('svg', { viewBox: `0 0 ${wide} ${HEIGHT}`, role: 'img', 'aria-label': `${title}: ${words}` }, grid, ends, drawn));
}

/** The figures of all tasks. */
export function curves(run, path, select) {
  const holder = h('div', { class: 'curves' });
  const names = h('ul', { class: 'legend' });
  const node = h('section', { class: 'sheet', 'aria-labelledby': 'figures', hidden: true },
    h('div', { class: 'title' }, h('h2', { id: 'figures' }, 'Figures')), holder, names);
  let left = false;

  async function read() {
    if (left || run.tasks.length > MANY) return;
    const { said } = await ask(`${path}?series=1`);
    const charts = new Map();
    const legend = new Map();
    said.tasks.forEach((task, index) => {
      const series = task.attempts[task.attempts.length - 1]?.series || [];
      for (const one of series) {
        if (!legend.has(index)) legend.set(index, legend.size);
        if (!charts.has(one.name)) charts.set(one.name, []);
        charts.get(one.name).push({ ...one, name: task.name, index, hue: legend.get(index) });
      }
    });
    node.hidden = charts.size === 0;
    put(holder, [...charts].map(([name, lines]) => chart(name, lines, 340, select)));
    put(names, legend.size > 1 && legend.size <= HUES ? [...legend].map(([index, hue]) =>
      h('li', {}, h('span', { class: `swatch hue-${hue % HUES}` }), run.tasks[index].name))
      : legend.size > HUES ? h('li', { class: 'soft' }, `${legend.size} tasks; pointing at a line tells its name, a click chooses the task`) : null);
  }

  const again = soon(() => read().catch(() => {}), 3000);
  again();
  return { node, heard: again, leave: () => { left = true; } };
}
