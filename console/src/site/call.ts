/** One call to control: JSON there and back, and what it refuses as an error that a person can read. */

import type { Approval, Problem } from './contract.ts';

export class Refused extends Error {
  readonly status: number;
  /** The word behind `urn:plimsoll:problem:`; `away` when there was no answer at all. */
  readonly word: string;
  readonly title: string;
  readonly detail: string;
  readonly retryAfterS: number | undefined;

  constructor(problem: Problem, retryAfterS?: number) {
    super(`${problem.title}: ${problem.detail}`);
    this.status = problem.status;
    this.word = problem.type.slice(problem.type.lastIndexOf(':') + 1);
    this.title = problem.title;
    this.detail = problem.detail;
    this.retryAfterS = retryAfterS;
  }
}

/** What a change came to: done, or asked for and waiting for a second person (202). */
export type Came<T> = { done: T } | { waits: Approval };

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send('GET', path, undefined, signal);
  return (await response.json()) as T;
}

/** A question whose answer is the same however often it is asked. */
export async function ask<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const response = await send('POST', path, body, signal);
  return (await response.json()) as T;
}

export async function change<T>(
  method: 'POST' | 'DELETE',
  path: string,
  body?: unknown,
  name?: string,
): Promise<Came<T>> {
  const response = await send(method, path, body, undefined, name);
  if (response.status === 202) return { waits: (await response.json()) as Approval };
  const text = await response.text();
  return { done: (text ? JSON.parse(text) : undefined) as T };
}

/** The bytes as they came: what proves itself must not be parsed and written anew. */
export async function bytes(path: string): Promise<Blob> {
  const response = await send('GET', path);
  return response.blob();
}

async function send(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
  name?: string,
): Promise<Response> {
  const headers = new Headers();
  const init: RequestInit = { method, headers, credentials: 'same-origin', cache: 'no-store' };
  if (signal) init.signal = signal;
  if (name) headers.set('Idempotency-Key', `"${name}"`);
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    headers.set('Content-Type', 'application/json');
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw away();
  }
  if (response.ok) return response;
  throw await refusal(response);
}

function away(): Refused {
  return new Refused({
    type: 'urn:plimsoll:problem:away',
    title: 'The site does not answer',
    status: 0,
    detail: `There is no connection to ${location.host}. What you see is as it was last heard.`,
  });
}

async function refusal(response: Response): Promise<Refused> {
  const retryAfter = Number(response.headers.get('Retry-After')) || undefined;
  const kind = response.headers.get('Content-Type') ?? '';
  if (kind.includes('json')) {
    try {
      return new Refused((await response.json()) as Problem, retryAfter);
    } catch {
      // What follows says as much as is known.
    }
  }
  return new Refused(
    {
      type: 'urn:plimsoll:problem:unreadable',
      title: `Refused with ${response.status}`,
      status: response.status,
      detail: 'The answer was not in words that the console knows.',
    },
    retryAfter,
  );
}

/** A path with a query string of what is set. */
export function withQuery(
  path: string,
  query: Record<string, string | number | undefined>,
): string {
  const set = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== '') set.set(name, String(value));
  }
  const text = set.toString();
  return text ? `${path}?${text}` : path;
}
