// What needs what, from left to right, coloured by state. Many tasks are drawn by their stages, so that a sweep of a
// thousand is still one picture.

import { h, put, s } from './dom.js';
import { STATES, count, middle, sign } from './words.js';

/** Up to so many tasks are drawn one by one. */
const SINGLY = 36;
const WIDTH = 176;
const HEIGHT = 46;
const ACROSS = 44;
const DOWN = 14;
const EDGE = 10;

/** Nodes of the picture: tasks, or stages with their tasks. */
function nodesOf(run) {
  const singly = run.tasks.length <= SINGLY;
  const nodes = [];
  const at = new Map();
  const place = run.tasks.map((task) => {
    const key = singly ? task.index : task.stage;
    if (!at.has(key)) {
      at.set(key, nodes.length);
      nodes.push({ name: singly ? task.name : task.stage, tasks: [], before: new Map(), critical: false });
    }
    const node = nodes[at.get(key)];
    node.tasks.push(task.index);
    node.critical ||= task.critical;
    return at.get(key);
  });
  for (const task of run.tasks) {
    const own = place[task.index];
    for (const other of task.after) {
      if (place[other] === own) continue;
      const critical = task.critical && run.tasks[other].critical;
      nodes[own].before.set(place[other], critical || nodes[own].before.get(place[other]) || false);
    }
  }
  return { nodes, singly };
}

/** Puts every node behind what it needs, and near to it. Circles between stages are cut where they are met. */
function layOut(nodes) {
  const level = new Array(nodes.length).fill(-1);
  const depth = (i, open) => {
    if (level[i] >= 0) return level[i];
    if (open.has(i)) return 0;
    open.add(i);
    let most = 0;
    for (const other of nodes[i].before.keys()) most = Math.max(most, depth(other, open) + 1);
    open.delete(i);
    level[i] = most;
    return most;
  };
  nodes.forEach((_, i) => depth(i, new Set()));
  const layers = [];
  level.forEach((at, i) => (layers[at] ||= []).push(i));
  const behind = nodes.map(() => []);
  nodes.forEach((node, i) => node.before.forEach((_, other) => behind[other].push(i)));
  const rank = new Array(nodes.length).fill(0);
  const number = () => layers.forEach((layer) => layer.forEach((i, at) => { rank[i] = at - layer.length / 2; }));
  number();
  const mean = (of, own) => (of.length ? of.reduce((sum, i) => sum + rank[i], 0) / of.length : rank[own]);
  for (let sweep = 0; sweep < 6; sweep += 1) {
    const forward = sweep % 2 === 0;
    for (const layer of forward ? layers : [...layers].reverse()) {
      const key = new Map(layer.map((i) => [i, mean(forward ? [...nodes[i].before.keys()] : behind[i], i)]));
      layer.sort((a, b) => key.get(a) - key.get(b) || a - b);
      layer.forEach((i, at) => { rank[i] = at - layer.length / 2; });
    }
  }
  const tallest = Math.max(1, ...layers.map((layer) => layer.length));
  layers.forEach((layer, x) => layer.forEach((i, y) => {
    nodes[i].x = EDGE + x * (WIDTH + ACROSS);
    nodes[i].y = EDGE + (y + (tallest - layer.length) / 2) * (HEIGHT + DOWN);
  }));
  return { width: 2 * EDGE + layers.length * WIDTH + (layers.length - 1) * ACROSS, height: 2 * EDGE + tallest * (HEIGHT + DOWN) - DOWN, layers };
}

export function graph(run, select, filter) {
  const { nodes, singly } = nodesOf(run);
  const { width, height } = layOut(nodes);
  const what = singly ? count(nodes.length, 'task') : `${count(nodes.length, 'stage')} of ${count(run.tasks.length, 'task')}`;
  const critical = run.tasks.filter((task) => task.critical);
  const edges = [];
  nodes.forEach((node) => node.before.forEach((heavy, other) => {
    const from = nodes[other];
    const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, node.x, node.y + HEIGHT / 2];
    const bend = Math.max(24, (x2 - x1) / 2);
    edges.push([heavy, s('path', { class: heavy ? 'edge heavy' : 'edge', d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` })]);
  }));
  // Critical ones above the others.
  edges.sort((a, b) => a[0] - b[0]);
  const drawn = nodes.map((node, i) => {
    const [, stage, point] = /^([^[]*)\[(.*)\]$/s.exec(singly ? node.name : '') || [null, node.name, ''];
    node.point = point;
    const label = s('text', { class: 'name', x: 28, y: 19 }, middle(stage, 18));
    const note = s('text', { class: 'note', x: 28, y: 36 });
    const title = s('title', {}, node.name);
    const strip = s('g', { class: 'strip', 'clip-path': 'inset(0 round 7px)' });
    const icon = s('g', { transform: 'translate(9,9)' });
    const group = s('g', { class: `node${node.critical ? ' critical' : ''}`, transform: `translate(${node.x},${node.y})`, role: 'button',
      tabindex: i === 0 ? '0' : '-1', on: { click: () => press(i), keydown: (event) => key(event, i) } },
    title, s('rect', { class: 'box', width: WIDTH, height: HEIGHT, rx: 7 }), strip, icon, label, note);
    return { node, group, note, strip, icon };
  });
  const picture = s('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': `What needs what: ${what}` },
    edges.map(([, edge]) => edge), drawn.map(({ group }) => group));
  const node = h('section', { class: 'sheet', 'aria-labelledby': 'graph' },
    h('div', { class: 'title' }, h('h2', { id: 'graph' }, 'Graph'), h('p', { class: 'soft' }, what,
      critical.length ? [' · ', h('span', { class: 'key' }), ' critical path'] : '')),
    h('div', { class: 'scroll graph', tabindex: '0', role: 'region', 'aria-label': 'Graph, scrollable' }, picture));

  function press(i) {
    focus(i);
    if (!singly) filter(nodes[i].name);
    const open = nodes[i].tasks.find((task) => ['failed', 'running'].includes(run.tasks[task].state));
    select(open ?? nodes[i].tasks[0]);
  }

  function focus(i) {
    drawn.forEach(({ group }, other) => group.setAttribute('tabindex', other === i ? '0' : '-1'));
  }

  function key(event, i) {
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      press(i);
      return;
    }
    const step = { ArrowDown: [0, 1], ArrowUp: [0, -1], ArrowRight: [1, 0], ArrowLeft: [-1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const own = nodes[i];
    let best = -1;
    let least = Infinity;
    nodes.forEach((other, j) => {
      const [dx, dy] = [(other.x - own.x) * step[0], (other.y - own.y) * step[1]];
      const ahead = step[0] ? dx : dy;
      const side = step[0] ? Math.abs(other.y - own.y) : Math.abs(other.x - own.x);
      if (ahead > 1 && ahead + 2 * side < least) [best, least] = [j, ahead + 2 * side];
    });
    if (best < 0) return;
    focus(best);
    drawn[best].group.focus();
  }

  function draw() {
    for (const { node: own, group, note, strip, icon } of drawn) {
      const counts = {};
      for (const task of own.tasks) counts[run.tasks[task].state] = (counts[run.tasks[task].state] || 0) + 1;
      const words = STATES.filter((state) => counts[state]).map((state) => (singly ? state : `${counts[state]} ${state}`)).join(', ');
      const drawnAs = `${words}|${singly ? run.tasks[own.tasks[0]].heard?.progress?.progress ?? '' : ''}`;
      if (group.dataset.as === drawnAs) continue;
      group.dataset.as = drawnAs;
      const main = STATES.find((state) => counts[state]) || 'waiting';
      group.setAttribute('aria-label', `${own.name}: ${words}${own.critical ? ', on the critical path' : ''}`);
      const done = run.tasks[own.tasks[0]].heard?.progress?.progress;
      const percent = singly && main === 'running' && done !== null && done !== undefined ? `${own.point ? ' · ' : 'running '}${Math.floor(100 * done)} %` : '';
      const finished = (counts.succeeded || 0) + (counts.cached || 0);
      note.textContent = singly ? middle(own.point, percent ? 13 : 20) + percent || main : `${finished} of ${own.tasks.length} done`;
      put(icon, sign(main));
      let x = 0;
      put(strip, ['succeeded', 'cached', 'running', 'failed', 'skipped', 'waiting'].filter((state) => counts[state]).map((state) => {
        const wide = (WIDTH * counts[state]) / own.tasks.length;
        const rect = s('rect', { class: `part of-${state}`, x, y: HEIGHT - 5, width: wide, height: 5 });
        x += wide;
        return rect;
      }));
      group.setAttribute('class', `node${own.critical ? ' critical' : ''}${own.marked ? ' marked' : ''} is-${main}`);
    }
  }

  return {
    node,
    draw,
    mark(index) {
      drawn.forEach((one) => {
        one.node.marked = one.node.tasks.includes(index);
        one.group.classList.toggle('marked', one.node.marked);
      });
    },
  };
}
