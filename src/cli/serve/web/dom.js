// Makes elements. Text only ever becomes text: nothing that a user named or a program printed is read as markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') for (const [kind, listener] of Object.entries(value)) node.addEventListener(kind, listener);
    else if (name === 'css') for (const [key, of] of Object.entries(value)) node.style.setProperty(key, of);
    else if (name in node && typeof value === 'boolean') node[name] = value;
    else if (name === 'value') node.value = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/** Makes an element of HTML. */
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

/** Makes an element of SVG. */
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** Puts these in the place of what is in a node. */
export function put(node, ...children) {
  node.replaceChildren();
  add(node, children);
  return node;
}

/** Sets a node's text if it is another one: what did not change is not read out again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Calls `work` soon, and once for all calls until then, at most so often (ms). */
export function soon(work, pause = 0) {
  let waits = false;
  let last = 0;
  return () => {
    if (waits) return;
    waits = true;
    const go = () => requestAnimationFrame((now) => {
      waits = false;
      last = now;
      work();
    });
    const wait = last + pause - performance.now();
    if (wait > 0) setTimeout(go, wait);
    else go();
  };
}

/** Says something to those who listen instead of looking. */
export function announce(text) {
  say(document.getElementById('say'), text);
}

/** Asks for JSON; throws what the server says is wrong. */
export async function ask(path, options) {
  const response = await fetch(path, options);
  const said = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(said.error || `the server answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return { said, response };
}
