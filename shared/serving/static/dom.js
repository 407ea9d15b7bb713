// Short names for what the page does with elements.

/** Return the element with this id. */
export const element = id => document.getElementById(id);

/** Return a new element. Text in it stays text: what a model or a file name contains is never parsed as HTML. */
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
