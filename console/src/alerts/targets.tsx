import { useState } from 'react';
import { Asked, Empty } from '../parts/asked.tsx';
import { Badge } from '../parts/badge.tsx';
import { Button } from '../parts/button.tsx';
import { Confirm, Told } from '../parts/dialog.tsx';
import { Choice, Field, NameField, Text, Tick } from '../parts/field.tsx';
import { Panel } from '../parts/page.tsx';
import { NotYours } from '../parts/problem.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import type { MailSecurity, Priority, Target, Targets, TargetState } from '../site/contract.ts';
import { useMe } from '../site/me.tsx';
import { may } from '../site/rights.ts';
import { counted } from '../words/number.ts';
import { Ago } from '../words/when.tsx';
import {
  formOf,
  goesTo,
  MAIL_PORTS,
  NEW_TARGET,
  type TargetForm,
  targetOf,
} from './target-form.ts';

const PATH = '/v1/alert-targets';
const SECRET_BYTES_MIN = 16;
const SECRET_BYTES_MAX = 256;

type Act = { of: 'new' } | { of: 'change' | 'test' | 'tested' | 'delete'; target: TargetState };

/** Who is told of alerts, and gets the weekly report. */
export function TargetsPanel() {
  const me = useMe();
  if (!may(me, 'settings.write')) {
    return (
      <Panel title="Who is told">
        <NotYours scope="settings.write" what="Targets" />
      </Panel>
    );
  }
  return <Shown />;
}

function Shown() {
  const targets = useAsk<Targets>(PATH);
  const [act, setAct] = useState<Act>();
  const cols: Col<TargetState>[] = [
    {
      head: 'Target',
      cell: one => (
        <>
          <strong>{one.id}</strong>
          <div className="faint">{'webhook' in one.way ? 'webhook' : 'mail'}</div>
        </>
      ),
    },
    {
      head: 'Goes to',
      cell: one => (
        <>
          {goesTo(one)}
          <div className="faint">{throughOf(one)}</div>
        </>
      ),
    },
    {
      head: 'Hears of',
      cell: one => (
        <>
          {HEARS[one.from_priority]}
          {one.reports && <div className="faint">and the weekly report</div>}
        </>
      ),
    },
    { head: 'State', cell: one => <State of={one} /> },
    {
      head: 'Change',
      cell: one => (
        <span className="row-buttons">
          {(
            [
              ['Test…', 'test'],
              ['Change…', 'change'],
              ['Delete…', 'delete'],
            ] as const
          ).map(([label, of]) => (
            <Button
              key={of}
              kind="quiet"
              aria-label={`${label} ${one.id}`}
              onClick={() => setAct({ of, target: one })}
            >
              {label}
            </Button>
          ))}
        </span>
      ),
    },
  ];
  const table = (rows: TargetState[] | undefined) => (
    <Table
      stacks
      caption="Who is told"
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={2}
      empty={
        <Empty title="Nobody is told">
          <p>Alerts show here, and nowhere else, until there is a webhook or an address.</p>
        </Empty>
      }
    />
  );
  const close = () => setAct(undefined);
  return (
    <Panel
      title="Who is told"
      aside={
        <Button icon="plus" onClick={() => setAct({ of: 'new' })}>
          New target…
        </Button>
      }
    >
      <Asked of={targets} waiting={table(undefined)}>
        {answer => table(answer.targets)}
      </Asked>
      {act?.of === 'new' && <Write first={NEW_TARGET} onClose={close} />}
      {act?.of === 'change' && <Write first={formOf(act.target)} of={act.target} onClose={close} />}
      {act?.of === 'test' && (
        <Confirm<TargetState>
          title={`Send a test to ${act.target.id}?`}
          verb="Send it"
          says={<p>A message that says that it is a test goes to {goesTo(act.target)} now.</p>}
          order={() => ({ path: `${pathOf(act.target)}/test` })}
          // It closes itself once it is known that it arrived; what is shown next is not to be closed with it.
          onClose={() => setAct(now => (now?.of === 'test' ? undefined : now))}
          onDone={target => setAct({ of: 'tested', target })}
        />
      )}
      {act?.of === 'tested' && (
        <Told title={`${act.target.id} was told`} icon="ok" onClose={close}>
          <p>It has taken the message. Whether somebody reads it, ask them.</p>
        </Told>
      )}
      {act?.of === 'delete' && (
        <Confirm
          title={`Delete ${act.target.id}?`}
          verb="Delete"
          danger
          says={
            <p>
              {goesTo(act.target)} hears of nothing any more
              {act.target.waiting > 0 &&
                `; ${counted(act.target.waiting, 'message')} that it has not heard yet ${act.target.waiting === 1 ? 'is' : 'are'} dropped`}
              .
            </p>
          }
          order={() => ({ path: `${pathOf(act.target)}/delete` })}
          onClose={close}
        />
      )}
    </Panel>
  );
}

const pathOf = (target: Target) => `${PATH}/${encodeURIComponent(target.id)}`;

const HEARS: Record<Priority, string> = {
  critical: 'critical alerts',
  warning: 'warnings and critical alerts',
  notice: 'every alert',
};

function throughOf(target: TargetState): string {
  if ('webhook' in target.way) return 'signed with a secret';
  const { host, port, user } = target.way.mail;
  return `by ${host}:${port}${user ? ` as ${user}` : ''}`;
}

function State({ of }: { of: TargetState }) {
  return (
    <>
      {of.trouble ? (
        <Badge tone="bad" icon="warn">
          failing
        </Badge>
      ) : of.delivered_at_ms === undefined ? (
        <Badge tone="calm" icon="wait">
          not told yet
        </Badge>
      ) : (
        <Badge tone="ok" icon="ok">
          told
        </Badge>
      )}
      {of.delivered_at_ms !== undefined && (
        <div className="faint">
          last <Ago ms={of.delivered_at_ms} />
        </div>
      )}
      {of.trouble && <div className="faint">{of.trouble}</div>}
      {of.waiting > 0 && <div className="faint">{counted(of.waiting, 'message')} waiting</div>}
    </>
  );
}

function Write({
  first,
  of,
  onClose,
}: {
  first: TargetForm;
  of?: TargetState;
  onClose: () => void;
}) {
  const [form, setForm] = useState(first);
  const put = (change: Partial<TargetForm>) => setForm(before => ({ ...before, ...change }));
  const fields = { form, put, hasSecret: of?.has_secret ?? false };
  return (
    <Confirm
      wide
      title={of ? `Change ${of.id}` : 'New target'}
      verb={of ? 'Change the target' : 'Make the target'}
      says={<p>It hears of alerts that begin, go up or end from now on. Send it a test after.</p>}
      order={() => ({ path: PATH, body: targetOf(form) })}
      onClose={onClose}
    >
      <div className="fields">
        {!of && <NameField value={form.id} onChange={id => put({ id })} />}
        <Choice
          label="Way"
          value={form.way}
          options={[
            ['webhook', 'webhook'],
            ['mail', 'mail'],
          ]}
          onChange={way => put({ way: way as TargetForm['way'] })}
        />
        <Choice
          label="Hears of"
          value={form.fromPriority}
          options={(['notice', 'warning', 'critical'] as const).map((one): [string, string] => [
            one,
            HEARS[one],
          ])}
          onChange={fromPriority => put({ fromPriority: fromPriority as Priority })}
        />
      </div>
      {form.way === 'webhook' ? <WebhookFields {...fields} /> : <MailFields {...fields} />}
      <details>
        <summary>An authority of its own</summary>
        <Text
          label="Whom its certificate is from, in PEM"
          hint="Beside the authorities of the machine that control runs on."
          rows={4}
          value={form.caPem}
          onChange={caPem => put({ caPem })}
        />
      </details>
      <Tick
        label="Gets the weekly report"
        value={form.reports}
        onChange={reports => put({ reports })}
      />
    </Confirm>
  );
}

interface Part {
  form: TargetForm;
  put: (change: Partial<TargetForm>) => void;
  hasSecret: boolean;
}

function WebhookFields({ form, put, hasSecret }: Part) {
  return (
    <>
      <Field
        label="Address"
        type="url"
        required
        hint="https; http to the machine of this site only."
        spellCheck={false}
        value={form.url}
        onChange={url => put({ url })}
      />
      <SecretField
        label="Secret"
        hint="Each message is signed with it: 16 to 256 bytes."
        required={!hasSecret}
        minLength={SECRET_BYTES_MIN}
        maxLength={SECRET_BYTES_MAX}
        form={form}
        put={put}
        hasSecret={hasSecret}
      />
    </>
  );
}

function MailFields({ form, put, hasSecret }: Part) {
  return (
    <div className="fields">
      <Field
        label="Mail server"
        required
        spellCheck={false}
        value={form.host}
        onChange={host => put({ host })}
      />
      <Choice
        label="Secured by"
        value={form.security}
        options={[
          ['tls', 'TLS from the first byte'],
          ['starttls', 'STARTTLS'],
          ['plain', 'nothing: this machine only'],
        ]}
        onChange={word => {
          const security = word as MailSecurity;
          put({ security, port: MAIL_PORTS[security] });
        }}
      />
      <Field
        label="Port"
        type="number"
        required
        min={1}
        max={65535}
        step={1}
        value={form.port}
        onChange={port => put({ port })}
      />
      <Field
        label="User"
        autoComplete="off"
        spellCheck={false}
        value={form.user}
        onChange={user => put({ user })}
      />
      <SecretField
        label="Password"
        hint="Of the user at the mail server."
        form={form}
        put={put}
        hasSecret={hasSecret}
      />
      <Field
        label="From"
        type="email"
        required
        value={form.from}
        onChange={from => put({ from })}
      />
      <Field
        label="To, with commas between"
        type="email"
        multiple
        required
        value={form.to}
        onChange={to => put({ to })}
      />
    </div>
  );
}

function SecretField({
  label,
  hint,
  form,
  put,
  hasSecret,
  ...bounds
}: Part & { label: string; hint: string; required?: boolean; minLength?: number; maxLength?: number }) {
  return (
    <Field
      label={label}
      type="password"
      autoComplete="off"
      hint={
        hasSecret ? `${hint} There is one, which is never shown: left empty, it is kept.` : hint
      }
      value={form.secret}
      onChange={secret => put({ secret })}
      {...bounds}
    />
  );
}
