/** The words that the console and `crates/api` share are the same words. */

import { readFileSync } from 'node:fs';
import { expect, test } from '@playwright/test';
import { outcomeOf } from '../../src/approvals/outcome.ts';
import { PRIORITIES, SCOPES, USER_ROLES, WIDENINGS } from '../../src/site/contract.ts';
import { CHANGE_KINDS } from '../../src/site/live.ts';
import { holds } from '../../src/site/rights.ts';

const api = (file: string) =>
  readFileSync(new URL(`../../../crates/api/src/${file}`, import.meta.url), 'utf8');
const scopeSource = api('scope.rs');

/** `Variant = "word",` of one `words!` block. */
function wordsOf(name: string): Map<string, string> {
  const block = new RegExp(`    ${name} \\{([\\s\\S]*?)\\n    \\}`).exec(scopeSource)?.[1] ?? '';
  return new Map(
    [...block.matchAll(/(\w+) = "([^"]+)"/g)].map(([, variant, word]) => [
      variant ?? '',
      word ?? '',
    ]),
  );
}

/** The variants of an enum, as serde writes them in snake case. */
function variantsOf(file: string, name: string): string[] {
  const block = new RegExp(`pub enum ${name} \\{([\\s\\S]*?)\\n\\}`).exec(api(file))?.[1] ?? '';
  const variants = [...block.matchAll(/^ {4}(\w+),$/gm)].map(([, variant]) => variant ?? '');
  return variants.map(variant =>
    variant.replace(/(?<!^)[A-Z]/g, letter => `_${letter}`).toLowerCase(),
  );
}

test('scopes and roles are the words of scope.rs', () => {
  expect([...SCOPES]).toEqual([...wordsOf('Scope').values()]);
  expect([...USER_ROLES]).toEqual([...wordsOf('UserRole').values()]);
});

test('a role holds here what it holds there', () => {
  const scopes = wordsOf('Scope');
  const list = (text: string) =>
    [...text.matchAll(/(?:S|Scope)::(\w+)/g)].map(([, variant]) => scopes.get(variant ?? ''));
  const reads = list(/const READS[\s\S]*?\];/.exec(scopeSource)?.[0] ?? '');
  expect(reads.length).toBeGreaterThan(5);
  for (const [variant, role] of wordsOf('UserRole')) {
    const arm = new RegExp(`Self::${variant} =>([\\s\\S]*?)\\][,\\s]`).exec(scopeSource)?.[1] ?? '';
    const there = new Set([...reads, ...list(arm)]);
    const here = SCOPES.filter(scope => holds(role as (typeof USER_ROLES)[number], scope));
    expect(here.toSorted(), role).toEqual([...there].toSorted());
  }
});

test('priorities and widenings are the words of alert.rs and approval.rs', () => {
  expect([...PRIORITIES]).toEqual(variantsOf('alert.rs', 'Priority'));
  expect([...WIDENINGS]).toEqual(variantsOf('approval.rs', 'Widening'));
});

test('of every act that control keeps for a second person, the console says what it does', () => {
  const source = readFileSync(
    new URL('../../../crates/control/src/approvals.rs', import.meta.url),
    'utf8',
  );
  const block = /pub enum Act \{([\s\S]*?)\n\}/.exec(source)?.[1] ?? '';
  const acts = [...block.matchAll(/^ {4}([A-Z]\w+) \{/gm)].map(([, variant = '']) =>
    variant.replace(/(?<!^)[A-Z]/g, letter => `_${letter}`).toLowerCase(),
  );
  expect(acts.length).toBeGreaterThan(5);
  const fields = { name: 'ben', grants: [], zones: [], needed_for: [], order: {} };
  for (const act of acts) expect(outcomeOf({ act, ...fields }), act).toBeDefined();
  expect(outcomeOf({ act: 'another' })).toBeUndefined();
});

test('kinds of changes are the words of stream.rs', () => {
  expect([...CHANGE_KINDS]).toEqual(variantsOf('stream.rs', 'ChangeKind'));
});
