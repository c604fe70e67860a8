import { readFileSync } from 'node:fs';
import { expect, test } from '@playwright/test';
import { formOf, looksAt, NEW_RULE, ruleOf } from '../../src/alerts/rule-form.ts';
import { endOf, localMinute } from '../../src/alerts/silence-end.ts';
import { formOf as targetForm, NEW_TARGET, targetOf } from '../../src/alerts/target-form.ts';
import type { Rule, Target } from '../../src/site/contract.ts';

const SHIPPED = JSON.parse(
  readFileSync(
    new URL('../../../crates/control/src/alerts/rules.json', import.meta.url),
    'utf8',
  ),
) as Rule[];

/** What serde fills in where a rule says nothing. */
const whole = (rule: Rule): Rule => ({
  for_ms: 0,
  group_by_gateway: false,
  latched: false,
  ...rule,
  ...('metric' in rule.signal
    ? { signal: { metric: { name: rule.signal.metric.name, labels: rule.signal.metric.labels ?? {} } } }
    : {}),
  enabled: rule.enabled ?? true,
});

test('every shipped rule comes out of the form as it went in', () => {
  expect(SHIPPED.length).toBeGreaterThan(10);
  for (const rule of SHIPPED.map(whole)) expect(ruleOf(formOf(rule)), rule.id).toEqual(rule);
});

test('a rule of each signal and condition comes out of the form as it went in', () => {
  const base = whole({ ...ruleOf({ ...NEW_RULE, id: 'mine', sql: 'select 1' }) });
  const rules: Rule[] = [
    { ...base, when: 'absent' },
    { ...base, when: { below: -0.5 }, for_ms: 1_500 },
    {
      ...base,
      signal: { metric: { name: 'x_total', labels: { a: 'b=c, d', e: '' } } },
      every_ms: 1_000,
    },
    { ...base, signal: { silence: { role: 'gateway' } }, when: { above: 300_000 } },
  ];
  for (const rule of rules) expect(ruleOf(formOf(rule))).toEqual(rule);
});

test('a rule says in a line what it looks at', () => {
  expect(looksAt({ signal: { sql: 'select 1' }, when: 'absent' })).toBe(
    'a question in SQL: a subject is missing',
  );
  expect(looksAt({ signal: { metric: { name: 'x_total' } }, when: { above: 3 } })).toBe(
    'x_total: above 3',
  );
  expect(looksAt({ signal: { silence: { role: 'device' } }, when: { above: 900_000 } })).toBe(
    'a device is not heard for 15 min',
  );
});

test('a target that is changed sends no secret unless one was typed', () => {
  const targets: Target[] = [
    {
      id: 'night',
      way: { webhook: { url: 'https://pager.example/plimsoll' } },
      from_priority: 'critical',
      reports: false,
    },
    {
      id: 'board',
      way: {
        mail: {
          host: 'mail.example',
          port: 465,
          security: 'tls',
          user: 'plimsoll',
          from: 'plimsoll@plant.example',
          to: ['anna@plant.example', 'ben@plant.example'],
        },
      },
      from_priority: 'warning',
      reports: true,
    },
  ];
  for (const target of targets) {
    const form = targetForm(target);
    expect(form.secret).toBe('');
    expect(targetOf(form)).toEqual(target);
  }
  const made = targetOf({ ...NEW_TARGET, id: 'x', secret: 'at least sixteen bytes' });
  expect(made.way).toMatchObject({ webhook: { secret: 'at least sixteen bytes' } });
});

test('a silence ends after so many hours, or at a local time', () => {
  const now = new Date(2026, 10, 22, 1, 30).getTime();
  expect(endOf('4', 'ignored', now)).toBe(now + 4 * 3_600_000);
  expect(endOf('', localMinute(now + 3_600_000), now)).toBe(now + 3_600_000);
});
