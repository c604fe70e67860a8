/** What is looked for in the fleet: the page's address, and the query string of `/v1/inventory`. */

import { withQuery } from '../site/call.ts';

export const FILTERS = [
  'search',
  'site',
  'zone',
  'group',
  'standing',
  'role',
  'version',
  'gateway',
  'silent_s',
] as const;
export type Filter = Partial<Record<(typeof FILTERS)[number], string>>;

export function filterOf(query: URLSearchParams): Filter {
  const filter: Filter = {};
  for (const name of FILTERS) {
    const value = query.get(name)?.trim();
    if (value) filter[name] = value;
  }
  return filter;
}

export function inventoryPath(filter: Filter, limit: number, after?: string): string {
  return withQuery('/v1/inventory', { ...filter, after, limit });
}

export function summaryPath(filter: Filter): string {
  return withQuery('/v1/inventory/summary', { ...filter });
}
