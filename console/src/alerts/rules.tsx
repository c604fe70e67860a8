import { useState } from 'react';
import { Asked, Empty } from '../parts/asked.tsx';
import { Badge, PriorityBadge } from '../parts/badge.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import { Choice, Field, NameField, Text, Tick } from '../parts/field.tsx';
import { Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import {
  type Priority,
  type Role,
  type Rule,
  type RuleState,
  type Rules,
  USER_ROLES,
  type UserRole,
} from '../site/contract.ts';
import { roleName } from '../site/rights.ts';
import { counted } from '../words/number.ts';
import { span } from '../words/time.ts';
import { Ago } from '../words/when.tsx';
import { formOf, looksAt, NEW_RULE, type RuleForm, ruleOf } from './rule-form.ts';

const PATH = '/v1/alert-rules';

type Act = { of: 'new' } | { of: 'change' | 'switch' | 'delete'; rule: Rule };

/** What is looked at, how often, whether it can be; and who may say so. */
export function RulesPanel() {
  const rules = useAsk<Rules>(PATH);
  const [act, setAct] = useState<Act>();
  const stateOf = (rule: Rule): RuleState | undefined => rules.data?.states[rule.id];
  const cols: Col<Rule>[] = [
    { head: 'Priority', cell: one => <PriorityBadge priority={one.priority} /> },
    {
      head: 'Rule',
      cell: one => (
        <>
          <strong>{one.id}</strong>{' '}
          <span className="faint">
            {originOf(stateOf(one))}
            {one.owner && ` · ${roleName(one.owner)}`}
          </span>
          <div className="faint">{one.sentence}</div>
          <div className="faint">
            {looksAt(one)}
            {one.for_ms ? `, for ${span(one.for_ms)}` : ''}
          </div>
        </>
      ),
    },
    { head: 'State', cell: one => <State rule={one} state={stateOf(one)} /> },
    {
      head: 'Looked at',
      cell: one => (
        <>
          <Ago ms={stateOf(one)?.looked_at_ms} />
          <div className="faint nowrap">every {span(one.every_ms)}</div>
        </>
      ),
      wide: true,
    },
    {
      head: 'Change',
      cell: one => (
        <span className="row-buttons">
          <Act label="Change…" of={one} onClick={() => setAct({ of: 'change', rule: one })} />
          <Act
            label={one.enabled ? 'Switch off…' : 'Switch on…'}
            of={one}
            onClick={() => setAct({ of: 'switch', rule: one })}
          />
          {(!stateOf(one)?.shipped || stateOf(one)?.changed) && (
            <Act
              label={stateOf(one)?.shipped ? 'As shipped…' : 'Delete…'}
              of={one}
              onClick={() => setAct({ of: 'delete', rule: one })}
            />
          )}
        </span>
      ),
    },
  ];
  const table = (rows: Rule[] | undefined) => (
    <Table
      stacks
      caption="Rules"
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={8}
      empty={<Empty title="Nothing is looked at" />}
    />
  );
  const close = () => setAct(undefined);
  return (
    <Panel
      title="Rules"
      aside={
        <ScopedButton scope="settings.write" icon="plus" onClick={() => setAct({ of: 'new' })}>
          New rule…
        </ScopedButton>
      }
    >
      <Asked of={rules} waiting={table(undefined)}>
        {answer => table(answer.rules)}
      </Asked>
      {act?.of === 'new' && <Write first={NEW_RULE} onClose={close} />}
      {act?.of === 'change' && (
        <Write first={formOf(act.rule)} changes={act.rule.id} onClose={close} />
      )}
      {act?.of === 'switch' && <Switch rule={act.rule} onClose={close} />}
      {act?.of === 'delete' && (
        <Delete rule={act.rule} isShipped={stateOf(act.rule)?.shipped ?? false} onClose={close} />
      )}
    </Panel>
  );
}

function Act({ label, of, onClick }: { label: string; of: Rule; onClick: () => void }) {
  return (
    <ScopedButton
      scope="settings.write"
      kind="quiet"
      aria-label={`${label} ${of.id}`}
      onClick={onClick}
    >
      {label}
    </ScopedButton>
  );
}

function originOf(state: RuleState | undefined): string {
  if (!state?.shipped) return 'of this site';
  return state.changed ? 'shipped, changed here' : 'shipped';
}

function State({ rule, state }: { rule: Rule; state: RuleState | undefined }) {
  if (!rule.enabled) {
    return (
      <Badge tone="calm" icon="minus">
        off
      </Badge>
    );
  }
  if (state?.trouble) {
    return (
      <>
        <Badge tone="warn" icon="warn">
          cannot be looked at
        </Badge>
        <div className="faint">{state.trouble}</div>
      </>
    );
  }
  return (
    <>
      <Badge tone={state?.open ? 'bad' : 'ok'} icon={state?.open ? 'stop' : 'ok'}>
        {state?.open ? 'firing' : 'quiet'}
      </Badge>
      {(state?.open ?? 0) > 1 && <div className="faint">{counted(state?.open ?? 0, 'alert')}</div>}
      {(state?.pending ?? 0) > 0 && <div className="faint">{state?.pending} pending</div>}
    </>
  );
}

const BEGINS_ANEW = 'What it had raised is resolved, and it begins anew.';

function Switch({ rule, onClose }: { rule: Rule; onClose: () => void }) {
  return (
    <Confirm
      title={`Switch ${rule.id} ${rule.enabled ? 'off' : 'on'}?`}
      verb={rule.enabled ? 'Switch off' : 'Switch on'}
      danger={rule.enabled}
      says={
        <p>
          {rule.enabled
            ? 'It is not looked at any more, and nobody hears of what it would find. What it had raised is resolved.'
            : 'It is looked at from now on.'}
        </p>
      }
      order={() => ({ path: PATH, body: { ...rule, enabled: !rule.enabled } })}
      onClose={onClose}
    />
  );
}

function Delete({
  rule,
  isShipped,
  onClose,
}: {
  rule: Rule;
  isShipped: boolean;
  onClose: () => void;
}) {
  return (
    <Confirm
      title={isShipped ? `${rule.id} as it was shipped?` : `Delete ${rule.id}?`}
      verb={isShipped ? 'As shipped' : 'Delete'}
      danger={!isShipped}
      says={
        <p>
          {isShipped
            ? `What was changed here is gone. ${BEGINS_ANEW}`
            : 'It is gone, and what it had raised is resolved.'}
        </p>
      }
      order={() => ({ path: `${PATH}/${encodeURIComponent(rule.id)}/delete` })}
      onClose={onClose}
    />
  );
}

/** A rule as a form. Control asks its question once before it counts, and says what is wrong with it. */
function Write({
  first,
  changes,
  onClose,
}: {
  first: RuleForm;
  changes?: string;
  onClose: () => void;
}) {
  const [form, setForm] = useState(first);
  const put = (change: Partial<RuleForm>) => setForm(before => ({ ...before, ...change }));
  return (
    <Confirm
      wide
      title={changes ? `Change ${changes}` : 'New rule'}
      verb={changes ? 'Change the rule' : 'Make the rule'}
      says={<p>Its question is asked once before it counts.{changes ? ` ${BEGINS_ANEW}` : ''}</p>}
      order={() => ({ path: PATH, body: ruleOf(form) })}
      onClose={onClose}
    >
      <div className="fields">
        {!changes && <NameField value={form.id} onChange={id => put({ id })} />}
        <Choice
          label="Priority"
          value={form.priority}
          options={[
            ['critical', 'critical: somebody gets up at night'],
            ['warning', 'warning: today'],
            ['notice', 'notice: when there is time'],
          ]}
          onChange={priority => put({ priority: priority as Priority })}
        />
        <Choice
          label="Owner"
          value={form.owner}
          options={[['', 'nobody’s'], ...USER_ROLES.map((one): [string, string] => [one, roleName(one)])]}
          onChange={owner => put({ owner: owner as UserRole | '' })}
        />
      </div>
      <Field
        label="What is the matter, in a sentence"
        required
        hint="{subject} and {value} stand for what was found."
        value={form.sentence}
        onChange={sentence => put({ sentence })}
      />
      <SignalFields form={form} put={put} />
      <div className="fields">
        <Field
          label="For, in minutes"
          type="number"
          required
          min={0}
          step="any"
          hint="So long it has to be so before it is an alert."
          value={form.forMinutes}
          onChange={forMinutes => put({ forMinutes })}
        />
        <Field
          label="Looked at every, in seconds"
          type="number"
          required
          min={1}
          step="any"
          value={form.everySeconds}
          onChange={everySeconds => put({ everySeconds })}
        />
        <Field
          label="Goes up after, in minutes"
          type="number"
          min={0}
          step="any"
          hint="When nobody has acknowledged it. Empty: never."
          value={form.escalateMinutes}
          onChange={escalateMinutes => put({ escalateMinutes })}
        />
        <Field
          label="Runbook"
          hint="A page of docs/runbooks."
          spellCheck={false}
          value={form.runbook}
          onChange={runbook => put({ runbook })}
        />
      </div>
      <Tick
        label="One alert for all subjects behind a gateway"
        value={form.groupByGateway}
        onChange={groupByGateway => put({ groupByGateway })}
      />
      <Tick
        label="Stays until somebody has acknowledged it, even when it is so no more"
        value={form.latched}
        onChange={latched => put({ latched })}
      />
      <Tick label="Switched on" value={form.enabled} onChange={enabled => put({ enabled })} />
    </Confirm>
  );
}

function SignalFields({
  form,
  put,
}: {
  form: RuleForm;
  put: (change: Partial<RuleForm>) => void;
}) {
  return (
    <>
      <div className="fields">
        <Choice
          label="Signal"
          value={form.signal}
          options={[
            ['sql', 'a question in SQL'],
            ['metric', 'a metric of control'],
            ['silence', 'how long nobody was heard'],
          ]}
          onChange={signal => put({ signal: signal as RuleForm['signal'] })}
        />
        {form.signal === 'silence' && (
          <Choice
            label="Of each"
            value={form.role}
            options={[
              ['device', 'device'],
              ['gateway', 'gateway'],
            ]}
            onChange={role => put({ role: role as Role })}
          />
        )}
        <Choice
          label="It is so when"
          value={form.when}
          options={[
            ['above', 'the value is above'],
            ['below', 'the value is below'],
            ['absent', 'a subject is named no more'],
          ]}
          onChange={when => put({ when: when as RuleForm['when'] })}
        />
        {form.when !== 'absent' && (
          <Field
            label={form.signal === 'silence' ? 'Limit, in milliseconds' : 'Limit'}
            type="number"
            required
            step="any"
            value={form.limit}
            onChange={limit => put({ limit })}
          />
        )}
      </div>
      {form.signal === 'sql' && (
        <Text
          label="Question, in SQL"
          hint="A row for each subject: subject, value, and gateway for a rule that groups. $now_ms stands for the time at which it is asked."
          rows={4}
          required
          value={form.sql}
          onChange={sql => put({ sql })}
        />
      )}
      {form.signal === 'metric' && (
        <>
          <Field
            label="Metric"
            required
            spellCheck={false}
            hint="A counter counts what it grew by since the last look."
            value={form.metric}
            onChange={metric => put({ metric })}
          />
          <Text
            label="Labels that have to match"
            hint="name=value, a line each. The others make the subject."
            rows={2}
            value={form.labels}
            onChange={labels => put({ labels })}
          />
        </>
      )}
    </>
  );
}
