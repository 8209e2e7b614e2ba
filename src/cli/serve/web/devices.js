// What this machine has, what is free of it, and who is on it.

import { ask, h, put, say } from './dom.js';
import { bytes, count } from './words.js';

const known = (value, unit = '') => (value === null || value === undefined ? '–' : `${value}${unit}`);

function gpu(device) {
  const used = device.memory_bytes !== null && device.memory_free_bytes !== null ? device.memory_bytes - device.memory_free_bytes : null;
  const part = used === null ? 0 : used / device.memory_bytes;
  const watts = device.power_milliwatts === null ? '–' : `${Math.round(device.power_milliwatts / 1000)}${device.power_limit_milliwatts ? ` of ${Math.round(device.power_limit_milliwatts / 1000)}` : ''} W`;
  const ails = [device.fault, ...(device.slowed || []).map((reason) => `slowed: ${reason}`),
    device.uncorrected_memory_errors ? `${device.uncorrected_memory_errors} uncorrected memory errors` : null].filter(Boolean);
  const facts = [['Busy', known(device.utilisation_percent, ' %')], ['Temperature', known(device.temperature_celsius, ' °C')], ['Power', watts],
    ['Clocks', `${known(device.sm_clock_mhz)} / ${known(device.memory_clock_mhz)} MHz`],
    ['PCIe', device.pcie_generation ? `gen ${device.pcie_generation} ×${device.pcie_width}` : '–'], ['NVLink group', known(device.nvlink_group)]];
  return h('section', { class: 'sheet gpu', 'aria-label': device.id },
    h('div', { class: 'title' }, h('h2', {}, device.id.split('/').pop(), ' ', h('span', { class: 'soft' }, device.model))),
    h('div', { class: 'gauge', role: 'img', 'aria-label': used === null ? 'memory unknown' : `${bytes(used)} of ${bytes(device.memory_bytes)} in use` },
      h('span', { class: part > 0.9 ? 'full' : '', css: { width: `${100 * part}%` } })),
    h('p', {}, used === null ? 'memory unknown' : [h('strong', {}, bytes(used)), ` of ${bytes(device.memory_bytes)} in use, ${bytes(device.memory_free_bytes)} free`]),
    ails.length ? h('p', { class: 'ails' }, ails.join('; ')) : null,
    h('dl', { class: 'facts' }, facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))),
    device.processes && device.processes.length ? h('div', { class: 'scroll' }, h('table', { class: 'list small' }, h('caption', { class: 'hidden' }, `Processes on ${device.id}`),
      h('thead', {}, h('tr', {}, ['PID', 'User', 'Memory', 'Command'].map((word) => h('th', { scope: 'col' }, word)))),
      h('tbody', {}, device.processes.map((one) => h('tr', {}, h('td', { class: 'num' }, one.pid), h('td', {}, one.user || '–'),
        h('td', { class: 'num' }, bytes(one.memory_bytes) || '–'), h('td', {}, one.command || '–'))))))
      : h('p', { class: 'soft' }, device.processes ? 'nobody is on it' : 'who is on it is not known'),
    h('p', { class: 'soft id' }, device.uuid));
}

export async function devices(place) {
  const lead = h('p', { class: 'lead' });
  const body = h('div');
  put(place, h('div', { class: 'head' }, h('div', {}, h('h1', {}, 'Devices'), lead)), body);
  let drawn = '';
  async function read() {
    const { said } = await ask('/api/devices');
    const { host } = said;
    say(lead, [host.name, count(host.cpus, 'CPU'), `${bytes(host.memory_bytes)} memory`,
      host.memory_available_bytes === null ? '' : `${bytes(host.memory_available_bytes)} available`,
      said.driver ? `NVIDIA driver ${said.driver}` : '', said.cuda ? `CUDA ${said.cuda}` : ''].filter(Boolean).join(' · '));
    const now = JSON.stringify([said.devices, said.warnings, said.no_gpu]);
    if (now === drawn) return;
    drawn = now;
    put(body, said.warnings.map((warning) => h('p', { class: 'note' }, warning)),
      said.no_gpu ? h('p', { class: 'note' }, `No GPU: ${said.no_gpu}`) : null,
      h('div', { class: 'grid-of' }, said.devices.map(gpu)));
  }
  await read();
  const tick = setInterval(() => document.hidden || read().catch(() => {}), 2000);
  return () => clearInterval(tick);
}
