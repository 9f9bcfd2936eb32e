/*
 * A parsed list question as SQL. Every column and operator comes from the tables below, every value goes as
 * a parameter.
 *
 * `status` is the one that is shown: that of a VM whose node is silent is `unknown`, so it is computed from
 * the join, for filtering and sorting as for showing.
 */
import type { Filter, FilterField, Sort, SortField, VmListQuery } from './vm-list.ts';

const shownStatus = `(case when n.id is not null and v.status in ('running', 'stopped', 'paused', 'saved') then 'unknown' else v.status end)`;

const columns: Readonly<Record<Exclude<FilterField, 'tag' | 'node' | 'image' | 'network'>, string>> = {
  id: 'v.id', name: 'v.name', status: shownStatus, desired: 'v.desired', observed: 'v.observed_state', ip: 'v.address', bootRuns: `(case when jsonb_array_length(coalesce(v.doc -> 'bootRuns', '[]')) > 0 then 'pending' else 'none' end)`, vcpus: 'v.vcpus', memoryMib: 'v.memory_mib', diskGib: 'v.disk_gib', createdAt: 'v.created_at',
};

const references = {
  node: { column: 'v.node_id', table: 'gateway.node_summary' },
  image: { column: 'v.image_id', table: 'gateway.image' },
  network: { column: 'v.network_id', table: 'gateway.network' },
} as const;

const sorts: Readonly<Record<SortField, string>> = { name: 'v.name', createdAt: 'v.created_at', memoryMib: 'v.memory_mib', vcpus: 'v.vcpus', status: shownStatus };

const FROM = 'from gateway.vm_summary v left join gateway.node_summary n on n.id = v.node_id and n.silent_since is not null';

export interface ListSql {
  readonly text: string;
  readonly values: readonly unknown[];
  readonly countText: string;
  readonly countValues: readonly unknown[];
}

/** `*` stands for any characters; everything else stands for itself. */
const pattern = (text: string): string => literal(text).replaceAll('*', '%');
const literal = (text: string): string => text.replaceAll(/[\\%_]/g, '\\$&');

export const listSql = (query: VmListQuery): ListSql => {
  const values: unknown[] = [];
  const parameter = (value: unknown): string => {
    values.push(value);
    return `$${String(values.length)}`;
  };
  const where = [...query.filters.map((filter) => condition(filter, parameter)), ...query.words.map((word) => `v.search like ${parameter(`%${literal(word)}%`)}`)];
  const countValues = [...values];
  const countText = `select count(*) ${FROM}${where.length === 0 ? '' : ` where ${where.join(' and ')}`}`;
  if (query.after !== undefined) where.push(behind(query.sort, query.after, parameter));
  const order = stepsOf(query.sort).map(({ column, descending }) => `${column} ${descending ? 'desc' : 'asc'}`);
  const text = `select v.id, v.doc::text, n.name, n.silent_since, ${query.sort.map(({ field }) => sorts[field]).join(', ')} ${FROM}`
    + `${where.length === 0 ? '' : ` where ${where.join(' and ')}`} order by ${order.join(', ')} limit ${parameter(query.limit + 1)}`;
  return { text, values, countText, countValues };
};

const condition = ({ field, operator, values }: Filter, parameter: (value: unknown) => string): string => {
  if (field === 'tag') {
    const isAny = operator === 'like'
      ? `exists (select from jsonb_array_elements_text(v.tags) tag where tag ilike ${parameter(pattern(String(values[0])))})`
      : `v.tags ?| ${parameter(values)}::text[]`;
    return operator === 'ne' || operator === 'notin' ? `not (${isAny})` : isAny;
  }
  if (field === 'node' || field === 'image' || field === 'network') {
    const { column, table } = references[field];
    const given = parameter(values);
    const isOne = `${column} = any(${given}::text[] || array(select r.id from ${table} r where r.name = any(${given}::text[])))`;
    return operator === 'ne' || operator === 'notin' ? `(${column} is null or not (${isOne}))` : isOne;
  }
  const column = columns[field];
  switch (operator) {
    case 'eq':
      return `${column} = ${parameter(values[0])}`;
    case 'ne':
      return `${column} is distinct from ${parameter(values[0])}`;
    case 'gt':
      return `${column} > ${parameter(values[0])}`;
    case 'lt':
      return `${column} < ${parameter(values[0])}`;
    case 'in':
      return `${column} = any(${parameter(values)})`;
    case 'notin':
      return `(${column} is null or ${column} <> all(${parameter(values)}))`;
    case 'like':
      return `${column} ilike ${parameter(pattern(String(values[0])))}`;
  }
};

/** The id comes last and goes the way of the field before it, so that an index of both can be walked. */
const stepsOf = (sort: readonly Sort[]): readonly { readonly column: string; readonly descending: boolean }[] =>
  [...sort.map(({ field, descending }) => ({ column: sorts[field], descending })), { column: 'v.id', descending: sort[sort.length - 1]?.descending ?? false }];

/** Rows behind the cursor in this order. One direction is one comparison, which an index answers; mixed ones are taken apart. */
const behind = (sort: readonly Sort[], after: { readonly values: readonly (string | number)[]; readonly id: string }, parameter: (value: unknown) => string): string => {
  const values = [...after.values, after.id].map(parameter);
  const steps = stepsOf(sort);
  const descending = steps[0]?.descending ?? false;
  if (steps.every((step) => step.descending === descending)) return `(${steps.map(({ column }) => column).join(', ')}) ${descending ? '<' : '>'} (${values.join(', ')})`;
  const cases = steps.map((step, index) => {
    const equal = steps.slice(0, index).map(({ column }, at) => `${column} = ${values[at] ?? ''}`);
    return `(${[...equal, `${step.column} ${step.descending ? '<' : '>'} ${values[index] ?? ''}`].join(' and ')})`;
  });
  return `(${cases.join(' or ')})`;
};
