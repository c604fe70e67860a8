/** A rule as it is being written down: texts of a form, and the rule that they make. Pure. */

import type { Condition, Priority, Role, Rule, Signal, UserRole } from '../site/contract.ts';
import { value } from '../words/number.ts';
import { span } from '../words/time.ts';

export interface RuleForm {
  id: string;
  sentence: string;
  priority: Priority;
  signal: 'sql' | 'metric' | 'silence';
  sql: string;
  metric: string;
  /** `name=value`, a line each. */
  labels: string;
  role: Role;
  when: 'above' | 'below' | 'absent';
  limit: string;
  forMinutes: string;
  everySeconds: string;
  escalateMinutes: string;
  runbook: string;
  owner: UserRole | '';
  groupByGateway: boolean;
  latched: boolean;
  enabled: boolean;
}

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;

export const NEW_RULE: RuleForm = {
  id: '',
  sentence: '{subject}: {value}',
  priority: 'warning',
  signal: 'sql',
  sql: '',
  metric: '',
  labels: '',
  role: 'device',
  when: 'above',
  limit: '0',
  forMinutes: '5',
  everySeconds: '60',
  escalateMinutes: '60',
  runbook: '',
  owner: 'operator',
  groupByGateway: false,
  latched: false,
  enabled: true,
};

export function formOf(rule: Rule): RuleForm {
  const { signal, when } = rule;
  return {
    ...NEW_RULE,
    id: rule.id,
    sentence: rule.sentence,
    priority: rule.priority,
    ...('sql' in signal ? { signal: 'sql', sql: signal.sql } : {}),
    ...('metric' in signal
      ? {
          signal: 'metric',
          metric: signal.metric.name,
          labels: Object.entries(signal.metric.labels ?? {})
            .map(([name, value]) => `${name}=${value}`)
            .join('\n'),
        }
      : {}),
    ...('silence' in signal ? { signal: 'silence', role: signal.silence.role } : {}),
    ...(when === 'absent'
      ? { when }
      : 'above' in when
        ? { when: 'above', limit: String(when.above) }
        : { when: 'below', limit: String(when.below) }),
    forMinutes: String((rule.for_ms ?? 0) / MINUTE_MS),
    everySeconds: String(rule.every_ms / SECOND_MS),
    escalateMinutes:
      rule.escalate_after_ms === undefined ? '' : String(rule.escalate_after_ms / MINUTE_MS),
    runbook: rule.runbook ?? '',
    owner: rule.owner ?? '',
    groupByGateway: rule.group_by_gateway ?? false,
    latched: rule.latched ?? false,
    enabled: rule.enabled,
  };
}

export function ruleOf(form: RuleForm): Rule {
  return {
    id: form.id.trim(),
    sentence: form.sentence.trim(),
    priority: form.priority,
    signal: signalOf(form),
    when: conditionOf(form),
    for_ms: Math.round(Number(form.forMinutes) * MINUTE_MS),
    every_ms: Math.round(Number(form.everySeconds) * SECOND_MS),
    ...(form.escalateMinutes.trim()
      ? { escalate_after_ms: Math.round(Number(form.escalateMinutes) * MINUTE_MS) }
      : {}),
    ...(form.runbook.trim() ? { runbook: form.runbook.trim() } : {}),
    group_by_gateway: form.groupByGateway,
    latched: form.latched,
    ...(form.owner ? { owner: form.owner } : {}),
    enabled: form.enabled,
  };
}

function signalOf(form: RuleForm): Signal {
  switch (form.signal) {
    case 'sql':
      return { sql: form.sql.trim() };
    case 'metric': {
      const labels = form.labels.split('\n').filter(one => one.trim());
      return {
        metric: {
          name: form.metric.trim(),
          labels: Object.fromEntries(
            labels.map(one => {
              const at = one.indexOf('=');
              return at < 0
                ? [one.trim(), '']
                : [one.slice(0, at).trim(), one.slice(at + 1).trim()];
            }),
          ),
        },
      };
    }
    case 'silence':
      return { silence: { role: form.role } };
  }
}

function conditionOf(form: RuleForm): Condition {
  if (form.when === 'absent') return 'absent';
  const limit = Number(form.limit);
  return form.when === 'above' ? { above: limit } : { below: limit };
}

/** What is looked at and when it is too much, in a line. */
export function looksAt({ signal, when }: Pick<Rule, 'signal' | 'when'>): string {
  if ('silence' in signal && when !== 'absent' && 'above' in when)
    return `a ${signal.silence.role} is not heard for ${span(when.above)}`;
  const what =
    'sql' in signal
      ? 'a question in SQL'
      : 'metric' in signal
        ? signal.metric.name
        : `milliseconds since a ${signal.silence.role} was heard`;
  if (when === 'absent') return `${what}: a subject is missing`;
  return 'above' in when
    ? `${what}: above ${value(when.above)}`
    : `${what}: below ${value(when.below)}`;
}
