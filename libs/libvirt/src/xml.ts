/*
 * XML as a tree of plain values, in which order and what we do not know are kept.
 *
 * fast-xml-parser (MIT, no native code, the most used one that keeps order) reads and builds. Three
 * things are done around it: it forgives what XML forbids, so its validator speaks first; its builder
 * leaves line breaks in attributes as they are, which the next reader would take for spaces, so we
 * escape values ourselves; and a document type, which only an attacker would send, is refused.
 * Comments are dropped, CDATA becomes text.
 */
import { XMLBuilder, XMLParser, XMLValidator } from 'fast-xml-parser';

export class XmlError extends Error {
  override readonly name = 'XmlError';
}

export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly XmlNode[];
}

/** Text stands as a string. */
export type XmlNode = XmlElement | string;

/** libvirt's own limit for one string of its protocol. */
const xmlCharactersMax = 4_194_304;
const elementName = /^[\p{L}_][\p{L}\p{N}_.:-]*$/u;
// What XML 1.0 has no way to write, not even as a reference.
const unwritable = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/;

const common = {
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: '',
  commentPropName: '#comment',
  cdataPropName: '#cdata',
} as const;

// htmlEntities is what makes the parser decode character references such as &#233;.
const parser = new XMLParser({ ...common, parseTagValue: false, parseAttributeValue: false, trimValues: false, htmlEntities: true, ignoreDeclaration: true, ignorePiTags: true });

const builder = new XMLBuilder({
  ...common,
  suppressEmptyNode: true,
  processEntities: false,
  tagValueProcessor: (_name: string, value: unknown) => escaped(String(value), /[&<>\r]/g),
  attributeValueProcessor: (_name: string, value: unknown) => escaped(String(value), /[&<>"'\t\n\r]/g),
});

function escaped(value: string, characters: RegExp): string {
  if (unwritable.test(value)) throw new XmlError('a control character cannot be written in XML');
  return value.replace(characters, (character) => `&#${character.codePointAt(0)};`);
}

/** Throws XmlError for what is not one well-formed element. */
export function parseXml(xml: string): XmlElement {
  if (xml.length > xmlCharactersMax) throw new XmlError(`XML of ${xml.length} characters exceeds the limit of ${xmlCharactersMax}`);
  if (xml.includes('<!DOCTYPE')) throw new XmlError('XML with a document type is refused');
  const validity = XMLValidator.validate(xml);
  if (validity !== true) throw new XmlError(`${validity.err.msg} (line ${validity.err.line})`);
  let tree: unknown;
  try {
    tree = parser.parse(xml);
  } catch (cause) {
    throw new XmlError('XML cannot be read', { cause });
  }
  const roots = nodesOf(tree).filter((node): node is XmlElement => typeof node !== 'string');
  const [root] = roots;
  if (root === undefined || roots.length > 1) throw new XmlError(`XML has ${roots.length} root elements`);
  return root;
}

/** The parser gives a list of objects with one key, the name, and perhaps `:@`, the attributes. */
type Raw = Readonly<Record<string, unknown>>;

function nodesOf(list: unknown): readonly XmlNode[] {
  const nodes: XmlNode[] = [];
  for (const raw of list as readonly Raw[]) {
    const name = Object.keys(raw).find((key) => key !== ':@');
    if (name === undefined || name === '#comment') continue;
    if (name === '#text') nodes.push(String(raw[name]));
    else if (name === '#cdata') nodes.push(inside(nodesOf(raw[name])));
    else nodes.push({ name, attributes: (raw[':@'] ?? {}) as Readonly<Record<string, string>>, children: nodesOf(raw[name]) });
  }
  return nodes;
}

/** Throws XmlError for a name or a value that XML cannot hold. */
export function buildXml(root: XmlElement): string {
  return builder.build([rawOf(root)]);
}

function rawOf(node: XmlNode): Raw {
  if (typeof node === 'string') return { '#text': node };
  for (const name of [node.name, ...Object.keys(node.attributes)]) if (!elementName.test(name)) throw new XmlError(`"${name}" is not a name in XML`);
  return { [node.name]: node.children.map(rawOf), ':@': node.attributes };
}

/** Children and attributes that are `undefined` are left out, so that optional parts read in place. */
export function element(
  name: string,
  attributes: Readonly<Record<string, string | number | undefined>> = {},
  ...children: readonly (XmlNode | number | undefined)[]
): XmlElement {
  const given: Record<string, string> = {};
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) given[key] = String(value);
  return {
    name,
    attributes: given,
    children: children.filter((child) => child !== undefined).map((child) => (typeof child === 'number' ? String(child) : child)),
  };
}

/** All child elements, or those of one name. */
export function childrenOf(parent: XmlElement | undefined, name?: string): readonly XmlElement[] {
  return (parent?.children ?? []).filter((child): child is XmlElement => typeof child !== 'string' && (name === undefined || child.name === name));
}

/** The first child of each name in turn: `childOf(domain, 'devices', 'emulator')`. */
export function childOf(parent: XmlElement | undefined, ...path: readonly string[]): XmlElement | undefined {
  let at = parent;
  for (const name of path) at = childrenOf(at, name)[0];
  return at;
}

const inside = (nodes: readonly XmlNode[]): string => nodes.map((node) => (typeof node === 'string' ? node : inside(node.children))).join('');

/** The text inside, of all depths, without the white space around it. */
export function textOf(node: XmlElement | undefined): string {
  return node === undefined ? '' : inside(node.children).trim();
}

/** Attribute of a child: `attributeOf(disk, 'dev', 'target')`. */
export function attributeOf(parent: XmlElement | undefined, attribute: string, ...path: readonly string[]): string | undefined {
  return childOf(parent, ...path)?.attributes[attribute];
}

/** Name without its namespace prefix. */
export const localName = (node: XmlElement): string => node.name.slice(node.name.indexOf(':') + 1);

/** The child whose own namespace is `uri`, as elements of `<metadata>` have one. */
export function childInNamespace(parent: XmlElement | undefined, uri: string): XmlElement | undefined {
  return childrenOf(parent).find((child) => {
    const colon = child.name.indexOf(':');
    return child.attributes[colon === -1 ? 'xmlns' : `xmlns:${child.name.slice(0, colon)}`] === uri;
  });
}

/** The same element with another attribute; `undefined` takes it away. Everything else is kept. */
export function withAttribute(node: XmlElement, attribute: string, value: string | number | undefined): XmlElement {
  const attributes = { ...node.attributes };
  if (value === undefined) delete attributes[attribute];
  else attributes[attribute] = String(value);
  return { ...node, attributes };
}

/**
 * The same element with its first child of that name in another form, or without it where `change` gives
 * `undefined`; where there was none, what `change` gives comes last. Everything else is kept, in its order.
 */
export function withChild(parent: XmlElement, name: string, change: (child: XmlElement | undefined) => XmlElement | undefined): XmlElement {
  const at = parent.children.findIndex((child) => typeof child !== 'string' && child.name === name);
  const changed = change(at === -1 ? undefined : (parent.children[at] as XmlElement));
  const children = [...parent.children];
  if (at === -1) children.push(...(changed === undefined ? [] : [changed]));
  else children.splice(at, 1, ...(changed === undefined ? [] : [changed]));
  return { ...parent, children };
}

const bytesIn: Readonly<Record<string, number>> = {
  b: 1,
  byte: 1,
  bytes: 1,
  KB: 1e3,
  k: 2 ** 10,
  K: 2 ** 10,
  KiB: 2 ** 10,
  MB: 1e6,
  M: 2 ** 20,
  MiB: 2 ** 20,
  GB: 1e9,
  G: 2 ** 30,
  GiB: 2 ** 30,
  TB: 1e12,
  T: 2 ** 40,
  TiB: 2 ** 40,
  PB: 1e15,
  P: 2 ** 50,
  PiB: 2 ** 50,
};

/** A size as libvirt writes it, `<memory unit='MiB'>512</memory>`, in bytes. `unit`: where none is written. */
export function bytesOf(size: XmlElement | undefined, unit = 'bytes'): number {
  const written = size?.attributes['unit'] ?? unit;
  const factor = bytesIn[written];
  const amount = Number(textOf(size));
  if (factor === undefined || !Number.isFinite(amount)) throw new XmlError(`a size of ${textOf(size)} ${written}`);
  return Math.floor(amount * factor);
}
