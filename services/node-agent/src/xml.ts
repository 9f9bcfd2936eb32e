/*
 * Just enough to write XML: elements whose text and attributes are escaped, whatever they hold. Reading is
 * libs/libvirt's, which the core does not reach.
 */

/** An element that is written already. Only `element` makes one, so nothing unescaped gets in. */
export interface Xml { readonly xml: string }

type Attribute = string | number | undefined;

/** Attributes and children that are `undefined` are left out. A string among the children is text. */
export function element(name: string, attributes: Readonly<Record<string, Attribute>> = {}, ...children: readonly (Xml | string | number | undefined)[]): Xml {
  const written = Object.entries(attributes).filter(([, value]) => value !== undefined).map(([key, value]) => ` ${key}="${escaped(String(value))}"`).join('');
  const inside = children.filter((child) => child !== undefined).map((child) => (typeof child === 'object' ? child.xml : escaped(String(child)))).join('');
  return { xml: inside === '' ? `<${name}${written}/>` : `<${name}${written}>${inside}</${name}>` };
}

// What XML 1.0 cannot hold at all, not even as a reference. The contracts let no NUL in, but other control characters.
const UNWRITABLE = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;

const escaped = (text: string): string => text.replace(UNWRITABLE, '').replace(/[&<>"'\t\n\r]/g, (character) => `&#${String(character.charCodeAt(0))};`);
