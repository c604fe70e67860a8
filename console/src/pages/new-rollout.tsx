import { type FormEvent, useState } from 'react';
import { ASKED, TakesTwo, Waits } from '../approvals/waits.tsx';
import { Asked, Lines } from '../parts/asked.tsx';
import { Button, ScopedButton } from '../parts/button.tsx';
import { Checks, Choice, Field, Text, Tick } from '../parts/field.tsx';
import { Icon } from '../parts/icon.tsx';
import { Page, Panel } from '../parts/page.tsx';
import { ProblemNote } from '../parts/problem.tsx';
import {
  faultsOf,
  groupsOf,
  lacksCanary,
  type OrderForm,
  orderOf,
  usualOrder,
} from '../rollout/order.ts';
import { go, pathTo, usePlace } from '../route.tsx';
import { useAsk, useOrder } from '../site/ask.ts';
import type { Approval, Releases, Rollout, Summary } from '../site/contract.ts';
import { counted } from '../words/number.ts';

/** A rollout is ordered whole, before it begins: nothing of it is changed later. */
export default function NewRolloutPage() {
  const { query } = usePlace();
  const releases = useAsk<Releases>('/v1/releases');
  return (
    <Page
      title="New rollout"
      lead="Nothing of it can be changed later: who has another mind makes another rollout."
    >
      <Asked of={releases} waiting={<Lines n={10} tall />}>
        {answer => (
          <Order
            releases={answer}
            first={usualOrder(query.get('product') ?? '', query.get('version') ?? '')}
          />
        )}
      </Asked>
    </Page>
  );
}

function Order({ releases, first }: { releases: Releases; first: OrderForm }) {
  const [form, setForm] = useState(first);
  const [waits, setWaits] = useState<Approval>();
  const [wasAsked, setAsked] = useState(false);
  const ordering = useOrder<Rollout>();
  const put = (change: Partial<OrderForm>) => setForm(before => ({ ...before, ...change }));
  const versions = new Set(releases.releases.map(one => `${one.product} ${one.version}`));
  const faults = faultsOf(form);

  const submit = (event: FormEvent) => {
    event.preventDefault();
    setAsked(true);
    if (faults.length > 0 || ordering.isPending) return;
    ordering.mutate(
      { path: '/v1/rollouts', body: orderOf(form) },
      {
        onSuccess: came => {
          if ('waits' in came) setWaits(came.waits);
          else go(pathTo('rollouts', came.done.id));
        },
      },
    );
  };
  if (waits) {
    return (
      <div className="note info" role="status">
        <Icon name="approval" />
        <div>
          <strong>{ASKED}</strong>
          <Waits of={waits} />
        </div>
      </div>
    );
  }
  return (
    <form onSubmit={submit} className="order">
      <Panel title="What, to whom">
        <div className="fields">
          <Choice
            label="Release"
            value={form.product ? `${form.product} ${form.version}` : ''}
            options={[
              ['', 'choose one'],
              ...[...versions].reverse().map((one): [string, string] => [one, one]),
            ]}
            onChange={one => {
              const at = one.lastIndexOf(' ');
              put({ product: one.slice(0, Math.max(0, at)), version: one.slice(at + 1) });
            }}
          />
          <Field
            label="Zones, with commas between"
            hint="None: of every zone."
            value={form.zones}
            onChange={zones => put({ zones })}
          />
          <Field
            label="Name"
            hint="None: product, version and a number."
            pattern="[a-z0-9._\-]{1,63}"
            spellCheck={false}
            value={form.id}
            onChange={id => put({ id })}
          />
        </div>
        <Groups chosen={form.groups} onChange={groups => put({ groups })} />
      </Panel>
      <WavesPanel form={form} put={put} />
      <SignalsPanel form={form} put={put} />
      <Panel title="When it goes wrong, and after">
        <div className="fields">
          <Field
            label="Halts below this share of success, in percent"
            type="number"
            required
            min={0.0001}
            max={100}
            step="any"
            value={form.successMinPercent}
            onChange={successMinPercent => put({ successMinPercent })}
          />
        </div>
        <Tick
          label="When it halts by itself, take it back without asking"
          value={form.backByItself}
          onChange={backByItself => put({ backByItself })}
        />
        <Tick
          label="Once completed, raise the floor: nothing below its security version boots there any more"
          value={form.raise}
          onChange={raise => put({ raise })}
        />
        <Tick label="Begin at once" value={form.start} onChange={start => put({ start })} />
      </Panel>
      {lacksCanary(form) && (
        <div className="note warn">
          <Icon name="warn" />
          <p>
            More than half get it at once: no few go first, to warn the others.{' '}
            <TakesTwo what="emergency_rollout" when={form.start ? 'This' : 'To begin it'} />
          </p>
        </div>
      )}
      <div role="alert">
        {wasAsked && faults.length > 0 && (
          <div className="note bad">
            <Icon name="warn" />
            <ul>
              {faults.map(fault => (
                <li key={fault}>{fault}</li>
              ))}
            </ul>
          </div>
        )}
      </div>
      {ordering.error && <ProblemNote error={ordering.error} />}
      <div className="buttons start">
        <ScopedButton scope="rollouts.write" type="submit" kind="main" busy={ordering.isPending}>
          {form.start ? 'Order and begin' : 'Order'}
        </ScopedButton>
        <Button onClick={() => go(pathTo('rollouts'))}>Cancel</Button>
      </div>
    </form>
  );
}

/** Groups that are shown; whoever has more of them names the others in an order of the command line. */
const GROUPS_MAX = 24;

/** Which groups it goes to, with how many devices each has. */
function Groups({
  chosen,
  onChange,
}: {
  chosen: string[];
  onChange: (chosen: string[]) => void;
}) {
  const summary = useAsk<Summary>('/v1/inventory/summary');
  const sizes = summary.data?.groups;
  return (
    <Checks
      legend="Groups"
      hint={
        chosen.length === 0
          ? 'None is chosen: every device that runs the product, on hardware that the release is for.'
          : 'Of these, every device that runs the product, on hardware that the release is for.'
      }
      options={groupsOf(sizes ?? {}, chosen)
        .slice(0, GROUPS_MAX)
        .map(group => ({
          value: group,
          shown: (
            <>
              {group}{' '}
              <span className="faint">{sizes ? counted(sizes[group] ?? 0, 'device') : ''}</span>
            </>
          ),
        }))}
      chosen={chosen}
      onChange={onChange}
    />
  );
}

interface Part {
  form: OrderForm;
  put: (change: Partial<OrderForm>) => void;
}

function WavesPanel({ form, put }: Part) {
  const set = (at: number, change: Partial<OrderForm['waves'][number]>) =>
    put({ waves: form.waves.map((wave, i) => (i === at ? { ...wave, ...change } : wave)) });
  return (
    <Panel
      title="Waves"
      aside={
        <Button
          icon="plus"
          onClick={() =>
            put({ waves: [...form.waves, { percent: '100', countMax: '', soakMinutes: '' }] })
          }
        >
          Another wave
        </Button>
      }
    >
      <ol className="wave-forms">
        {form.waves.map((wave, at) => (
          // A wave is known by its place.
          <li key={at}>
            <fieldset className="fields">
              <legend>Wave {at + 1}</legend>
              <Field
                label="Percent, with those before"
                type="number"
                required
                min={0.0001}
                max={100}
                step="any"
                value={wave.percent}
                onChange={percent => set(at, { percent })}
              />
              <Field
                label="Devices at most"
                type="number"
                min={1}
                step={1}
                value={wave.countMax}
                onChange={countMax => set(at, { countMax })}
              />
              <Field
                label="Soak, in minutes"
                type="number"
                min={0}
                step="any"
                value={wave.soakMinutes}
                onChange={soakMinutes => set(at, { soakMinutes })}
              />
              <Button
                kind="quiet"
                icon="bad"
                aria-label={`Take away wave ${at + 1}`}
                disabled={form.waves.length === 1}
                onClick={() => put({ waves: form.waves.filter((_, i) => i !== at) })}
              />
            </fieldset>
          </li>
        ))}
      </ol>
    </Panel>
  );
}

/** A gate that every product with a resident size can have. */
const FIRST_SIGNAL = {
  name: 'memory',
  sql: "select max(value) from readings where series = 'app/rss' and received_at >= to_timestamp_millis($opened_ms)",
  bound: 'at_most' as const,
  limit: '50000000',
};

function SignalsPanel({ form, put }: Part) {
  const set = (at: number, change: Partial<OrderForm['signals'][number]>) =>
    put({
      signals: form.signals.map((signal, i) => (i === at ? { ...signal, ...change } : signal)),
    });
  return (
    <Panel
      title="Signals between waves"
      aside={
        <Button
          icon="plus"
          onClick={() =>
            put({
              signals: [
                ...form.signals,
                form.signals.length === 0
                  ? FIRST_SIGNAL
                  : { name: '', sql: '', bound: 'at_most', limit: '' },
              ],
            })
          }
        >
          A signal
        </Button>
      }
    >
      {form.signals.length === 0 && (
        <p className="faint">
          None: only what devices prove of themselves decides. A signal is a question in SQL whose
          answer is one number, and what that number may be.
        </p>
      )}
      {form.signals.map((signal, at) => (
        // A signal is known by its place while it is written.
        <fieldset key={at} className="fields signal">
          <legend>Signal {at + 1}</legend>
          <Field label="Name" required value={signal.name} onChange={name => set(at, { name })} />
          <Choice
            label="Its answer is"
            value={signal.bound}
            options={[
              ['at_most', 'at most'],
              ['at_least', 'at least'],
            ]}
            onChange={bound => set(at, { bound: bound as 'at_most' | 'at_least' })}
          />
          <Field
            label="Limit"
            type="number"
            step="any"
            required
            value={signal.limit}
            onChange={limit => set(at, { limit })}
          />
          <Text
            label="Question, in SQL"
            hint="$opened_ms and $started_ms stand for the wave’s and the rollout’s begin."
            required
            value={signal.sql}
            onChange={sql => set(at, { sql })}
          />
          <Button onClick={() => put({ signals: form.signals.filter((_, i) => i !== at) })}>
            Take it away
          </Button>
        </fieldset>
      ))}
    </Panel>
  );
}
