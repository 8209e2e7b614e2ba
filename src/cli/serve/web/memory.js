// What each GPU held over time: what was reserved on it, and what was measured, of anybody and of the run's own tasks.

import { ask, h, put, s } from './dom.js';
import { bytes, key, time } from './words.js';

const [WIDTH, HEIGHT] = [420, 110];
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 8, 8, 18];

/** Reservations on a device as steps: `[ms, bytes]`. */
function steps(run, device, end) {
  const changes = [];
  for (const task of run.tasks) {
    for (const attempt of task.attempts) {
      if (!attempt.devices.includes(device) || !attempt.gpu_memory_bytes) continue;
      changes.push([Date.parse(attempt.started) - run.started, attempt.gpu_memory_bytes]);
      if (attempt.finished) changes.push([Date.parse(attempt.finished) - run.started, -attempt.gpu_memory_bytes]);
    }
  }
  changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let held = 0;
  const all = [[0, 0]];
  for (const [at, by] of changes) {
    held += by;
    all.push([at, held]);
  }
  all.push([end, held]);
  return all;
}

export function memory(run) {
  const holder = h('div', { class: 'memory' });
  const node = h('section', { class: 'sheet', 'aria-labelledby': 'memory', hidden: true },
    h('div', { class: 'title' }, h('h2', { id: 'memory' }, 'GPU memory'),
      h('p', { class: 'soft keys' }, key('reserved', 'reserved'), key('measured', 'in use'), key('ours', 'of it by this run'))),
    holder);
  let sizes = new Map();
  ask('/api/devices').then(({ said }) => {
    sizes = new Map(said.devices.map((device) => [device.id, device.memory_bytes]));
    draw();
  }, () => {});

  function draw() {
    const end = Math.max(1, run.end());
    // What a run neither got nor wanted is on the page of devices.
    const devices = new Set();
    for (const task of run.tasks) {
      task.places.filter((place) => !place.endsWith('/cpu')).forEach((id) => devices.add(id));
      for (const attempt of task.attempts) attempt.devices.forEach((id) => devices.add(id));
    }
    node.hidden = devices.size === 0;
    if (node.hidden) return;
    const sorted = [...devices].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    put(holder, sorted.map((device) => one(device, end)));
  }

  function one(device, end) {
    const reserved = steps(run, device, end);
    const course = (all) => {
      const { ms, value } = all.find((other) => other.name === device) || { ms: [], value: [] };
      // What was seen after the end is not the run's.
      const within = ms.findLastIndex((at) => at <= end) + 1;
      return { ms: ms.slice(0, within), value: value.slice(0, within) };
    };
    const [used, ours] = [course(run.memory.used), course(run.memory.ours)];
    const most = Math.max(...reserved.map((step) => step[1]));
    const peak = used.value.reduce((a, b) => Math.max(a, b), 0);
    const gauge = run.state === 'running' ? run.gauges?.find((other) => other.id === device) : null;
    const size = gauge?.total_bytes || sizes.get(device) || Math.max(most, peak, 1);
    const x = (ms) => LEFT + ((WIDTH - LEFT - RIGHT) * Math.min(Math.max(ms, 0), end)) / end;
    const y = (held) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * Math.min(held, size)) / size;
    let area = `M${x(0)} ${y(0)}`;
    for (const [at, held] of reserved) area += `H${x(at).toFixed(1)}V${y(held).toFixed(1)}`;
    area += `V${y(0)}Z`;
    const line = (kind, { ms, value }) => (ms.length > 1
      ? s('path', { class: kind, d: `M${ms.map((at, i) => `${x(at).toFixed(1)} ${y(value[i]).toFixed(1)}`).join('L')}` }) : null);
    const now = gauge ? `now ${bytes(gauge.used_bytes) || 'unknown'} of ${bytes(gauge.total_bytes)}${gauge.utilisation_percent === null ? '' : `, ${gauge.utilisation_percent} % busy`}` : '';
    const words = [most ? `at most ${bytes(most)} reserved` : '', peak ? `at most ${bytes(peak)} in use` : '', now].filter(Boolean).join(' · ');
    return h('figure', {}, h('figcaption', {}, h('strong', {}, device), h('span', { class: 'soft' }, ` ${words}`)),
      s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': `${device}: ${words}` },
        [0, 0.5, 1].map((part) => [s('path', { class: 'grid', d: `M${LEFT} ${y(part * size)}H${WIDTH - RIGHT}` }),
          s('text', { class: 'tick', x: LEFT - 6, y: y(part * size) + 4, 'text-anchor': 'end' }, part ? bytes(part * size) : '0')]),
        s('path', { class: 'reserved', d: area }),
        line('measured', used), line('ours', ours),
        s('text', { class: 'tick', x: LEFT, y: HEIGHT - 5 }, '0'),
        s('text', { class: 'tick', x: WIDTH - RIGHT, y: HEIGHT - 5, 'text-anchor': 'end' }, time(end))));
  }

  return { node, draw };
}
