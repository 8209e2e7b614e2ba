// One run while it happens: what was planned, what became of it, and the task that is looked at.

import { announce, ask, h, put, say, soon } from './dom.js';
import { STATES, badge, bar, clock, count, sign, time, when } from './words.js';
import { listen } from './live.js';
import { graph } from './graph.js';
import { gantt } from './gantt.js';
import { memory } from './memory.js';
import { curves } from './curves.js';
import { tasks } from './tasks.js';
import { detail } from './task.js';

/** Puts plan and record of a run together, so that every view has one thing to look at. */
function model(shown, plan) {
  const started = Date.parse(shown.started);
  const all = plan.tasks.map((planned, index) => ({ index, ...planned, state: 'waiting', attempts: [], heard: null }));
  const run = { id: shown.run, pipeline: shown.pipeline, state: shown.state, started, finished: null,
    tasks: all, makespan: plan.makespan_ms, counts: {}, left: null, stopping: false, waits: [], memory: [], gauges: null };
  run.end = () => (run.finished ? run.finished - started : run.state === 'running' ? Date.now() - started : lastKnown(run) - started);
  take(run, { run: shown, tasks: shown.tasks.map((task, index) => ({ index, task })) });
  return run;
}

function lastKnown(run) {
  let last = run.started;
  for (const task of run.tasks) for (const one of task.attempts) last = Math.max(last, Date.parse(one.finished || one.started));
  return last;
}

function take(run, change) {
  run.state = change.run.state;
  run.finished = change.run.finished ? Date.parse(change.run.finished) : null;
  for (const { index, task } of change.tasks) {
    const own = run.tasks[index];
    Object.assign(own, { state: task.state, attempts: task.attempts });
    if (own.state !== 'running') own.heard = null;
  }
  run.counts = {};
  for (const task of run.tasks) run.counts[task.state] = (run.counts[task.state] || 0) + 1;
}

export async function run(place, { what, about, query, go }) {
  const path = `/api/runs/${encodeURIComponent(what)}`;
  const [{ said: shown, response }, { said: plan }] = await Promise.all([ask(path), ask(`${path}/plan`)]);
  const it = model(shown, plan);
  const chosen = { task: null };

  const state = h('span');
  const facts = h('p', { class: 'lead' });
  const progress = h('div', { class: 'overall' });
  const cancel = h('button', { type: 'button', class: 'danger', on: { click: () => question.showModal() } }, 'End run…');
  const question = dialog();
  const chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'Show tasks that are' });
  const waits = h('section', { class: 'sheet waits', 'aria-labelledby': 'waits', hidden: true },
    h('h2', { id: 'waits' }, 'Waiting'), h('ul'));

  const select = (index) => {
    chosen.task = index;
    views.task.show(index);
    views.graph.mark(index);
    views.tasks.mark(index);
    const address = new URL(location.href);
    address.searchParams.set('task', it.tasks[index].name);
    history.replaceState(null, '', address);
  };
  const views = {
    graph: graph(it, select, (stage) => views.tasks.filter(stage)),
    gantt: gantt(it, select),
    memory: memory(it),
    curves: curves(it, path, select),
    tasks: tasks(it, select),
    task: detail(it, path),
  };
  put(place,
    h('div', { class: 'head' },
      h('div', {}, h('h1', {}, it.pipeline), facts),
      h('div', { class: 'tools' }, state, cancel)),
    progress, chips, waits,
    h('div', { class: 'split' },
      h('div', { class: 'column' }, views.graph.node, views.gantt.node, views.memory.node, views.curves.node, views.tasks.node),
      views.task.node),
    question);

  function dialog() {
    const end = async (now) => {
      question.close();
      try {
        await ask(`${path}/cancel${now ? '?now=1' : ''}`, { method: 'POST' });
        announce('The run is asked to end');
        it.asked = true;
        head();
      } catch (error) {
        announce(error.message);
        say(facts, error.message);
      }
    };
    return h('dialog', { 'aria-labelledby': 'question' },
      h('h2', { id: 'question' }, 'End this run?'),
      h('p', {}, 'Its tasks are asked to end and have their grace to do so. What is done stays done: trainyard resume goes on from there.'),
      h('div', { class: 'tools' },
        h('button', { type: 'button', class: 'danger', id: 'end', on: { click: () => end(false) } }, 'End it'),
        h('button', { type: 'button', id: 'kill', on: { click: () => end(true) } }, 'Kill its tasks at once'),
        h('button', { type: 'button', class: 'quiet', autofocus: true, on: { click: () => question.close() } }, 'Let it run')));
  }

  function head() {
    put(state, badge(it.state, it.asked && it.state === 'running' ? 'ending' : it.stopping && it.state === 'running' ? 'stopping' : it.state));
    cancel.hidden = !about.writes || it.state !== 'running';
    cancel.disabled = Boolean(it.asked);
    const parts = [it.id, `started ${when(shown.started)}`];
    const took = it.end();
    parts.push(it.state === 'running' ? `running for ${clock(took)}` : `took ${time(took)}`);
    if (it.state === 'running' && it.left !== null) parts.push(`about ${clock(it.left)} left`);
    if (it.makespan) parts.push(`planned ${time(it.makespan)}`);
    say(facts, parts.join(' · '));
  }

  function counts() {
    put(progress, bar(it.counts));
    const wanted = views.tasks.wanted();
    const focused = document.activeElement?.dataset?.state;
    put(chips, STATES.filter((word) => it.counts[word]).map((word) => {
      const chip = h('button', { type: 'button', class: 'chip', 'data-state': word, 'aria-pressed': String(wanted === word),
        on: { click: () => { views.tasks.only(views.tasks.wanted() === word ? null : word); counts(); } } },
      sign(word), `${it.counts[word].toLocaleString()} ${word}`);
      return chip;
    }));
    if (focused) chips.querySelector(`[data-state="${focused}"]`)?.focus();
  }

  function wait() {
    waits.hidden = !it.waits.length || it.state !== 'running';
    put(waits.querySelector('ul'), it.waits.map((one) => {
      const first = it.tasks[one.tasks[0]];
      return h('li', {}, h('strong', {}, first ? first.name : ''), one.count > 1 ? ` and ${one.count - 1} more: ` : ': ', one.words,
        h('span', { class: 'soft' }, ` for ${clock(Date.now() - Date.parse(one.since))}`));
    }));
  }

  const quick = soon(() => {
    head();
    counts();
    wait();
    views.tasks.draw();
    views.graph.draw();
  });
  const slow = soon(() => {
    views.gantt.draw();
    views.memory.draw();
  }, 400);

  const leave = listen(`${path}/events`, {
    change(change) {
      const before = new Map(change.tasks.map(({ index }) => [index, it.tasks[index].state]));
      const was = it.state;
      take(it, change);
      it.left = change.left_ms;
      it.stopping = change.stopping;
      const news = change.tasks.filter(({ index, task }) => before.get(index) !== task.state && ['failed', 'succeeded'].includes(task.state));
      if (was !== it.state) announce(`The run ${it.state === 'running' ? 'goes on' : `has ${it.state}`}`);
      else if (news.length === 1) announce(`${news[0].task.name} ${news[0].task.state}`);
      else if (news.length) announce(`${count(news.length, 'task')} ended`);
      quick();
      slow();
      views.task.changed(change.tasks.map(({ index }) => index));
    },
    heard({ left_ms: left, tasks: heard }) {
      it.left = left;
      for (const one of heard) if (it.tasks[one.index].state === 'running') it.tasks[one.index].heard = one;
      quick();
      views.task.heard(heard);
      views.curves.heard();
    },
    waits(said) {
      it.waits = said;
      quick();
      views.task.waits();
    },
    memory(said) {
      it.memory = said;
      slow();
    },
    gauges(said) {
      it.gauges = said.devices;
      for (const device of said.devices) {
        if (device.used_bytes === null) continue;
        let series = it.memory.find((one) => one.name === device.id);
        if (!series) it.memory.push(series = { name: device.id, ms: [], value: [] });
        series.ms.push(said.ms);
        series.value.push(device.used_bytes);
      }
      slow();
    },
  }, response.headers.get('last-event-id'));

  const tick = setInterval(() => {
    if (it.state !== 'running') return;
    head();
    wait();
    views.tasks.tick();
    slow();
  }, 1000);

  quick();
  slow();
  const named = query.get('task');
  const first = it.tasks.findIndex((task) => task.name === named);
  const usual = ['failed', 'running'].map((word) => it.tasks.findIndex((task) => task.state === word)).find((at) => at >= 0);
  const start = first >= 0 ? first : usual ?? (it.tasks.length - 1);
  if (start >= 0) {
    chosen.task = start;
    views.task.show(start);
    views.graph.mark(start);
    views.tasks.mark(start);
  }
  return () => {
    clearInterval(tick);
    leave();
    Object.values(views).forEach((view) => view.leave?.());
  };
}
