import { useState } from 'react';
import { Acknowledge } from '../alerts/acknowledge.tsx';
import { worstFirst } from '../alerts/order.ts';
import { RulesPanel } from '../alerts/rules.tsx';
import { SilenceFirst } from '../alerts/silence.tsx';
import { SilencesPanel } from '../alerts/silences.tsx';
import { TargetsPanel } from '../alerts/targets.tsx';
import { SubjectLink } from '../evidence/event-table.tsx';
import { Asked, Empty } from '../parts/asked.tsx';
import { PriorityBadge } from '../parts/badge.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Choice } from '../parts/field.tsx';
import { Page, Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { Link, pathTo, usePlace, useQueryText } from '../route.tsx';
import { FIRING, useAsk } from '../site/ask.ts';
import { withQuery } from '../site/call.ts';
import { type Alert, type Alerts, PRIORITIES } from '../site/contract.ts';
import { counted } from '../words/number.ts';
import { Ago, Until, When } from '../words/when.tsx';

const PAGE = 200;

const STATES: [string, string][] = [
  ['', 'Open'],
  ['firing', 'Firing'],
  ['acknowledged', 'Acknowledged'],
  ['resolved', 'Resolved'],
  ['all', 'All'],
];

const VIEWS: [name: string | undefined, title: string][] = [
  [undefined, 'Now'],
  ['silences', 'Silences'],
  ['rules', 'Rules'],
  ['targets', 'Who is told'],
];

/** What somebody should know of; and what is looked at, what is silent, who is told. */
export function AlertsPage({ view }: { view: string | undefined }) {
  const firing = useAsk<Alerts>(FIRING);
  return (
    <Page
      title="Alerts"
      lead={
        <span role="status">
          {firing.data ? `${counted(firing.data.firing, 'alert')} firing` : '\u00a0'}
        </span>
      }
    >
      <nav className="views" aria-label="Alerts">
        {VIEWS.map(([name, title]) => (
          <Link
            key={title}
            to={pathTo('alerts', name)}
            aria-current={view === name ? 'page' : undefined}
          >
            {title}
          </Link>
        ))}
      </nav>
      <View of={view} />
    </Page>
  );
}

function View({ of }: { of: string | undefined }) {
  switch (of) {
    case 'silences':
      return <SilencesPanel />;
    case 'rules':
      return <RulesPanel />;
    case 'targets':
      return <TargetsPanel />;
  }
  return <AlertsNow />;
}

/** Alerts, worst first. */
function AlertsNow() {
  const { query } = usePlace();
  const set = useQueryText();
  const state = query.get('state') ?? '';
  const priority = query.get('priority') ?? '';
  const asked = state === 'all' ? '' : state || 'open';
  const alerts = useAsk<Alerts>(withQuery('/v1/alerts', { state: asked, priority, limit: PAGE }), {
    keeps: true,
  });
  const [acknowledges, setAcknowledges] = useState<Alert>();
  const [silences, setSilences] = useState<Alert>();

  const cols: Col<Alert>[] = [
    { head: 'Priority', cell: one => <PriorityBadge priority={one.priority} /> },
    {
      head: 'What',
      cell: one => (
        <>
          {one.sentence}
          {one.count > 1 && (
            <span className="faint"> Stands for {counted(one.count, 'subject')}.</span>
          )}
          <div className="faint">
            <SubjectLink subject={one.subject} /> · rule {one.rule}
            {one.runbook && (
              <>
                {' '}
                · runbook <code>{one.runbook}</code>
              </>
            )}
          </div>
        </>
      ),
    },
    {
      head: 'Since',
      cell: one => <Ago ms={one.since_ms} />,
    },
    { head: 'State', cell: one => <State of={one} /> },
    {
      head: 'Answer',
      cell: one =>
        one.state === 'resolved' ? (
          <span className="faint">–</span>
        ) : (
          <span className="row-buttons">
            {one.state === 'firing' && (
              <ScopedButton scope="alerts.write" onClick={() => setAcknowledges(one)}>
                Acknowledge…
              </ScopedButton>
            )}
            {one.silenced_until_ms === undefined && (
              <ScopedButton scope="alerts.write" kind="quiet" onClick={() => setSilences(one)}>
                Silence…
              </ScopedButton>
            )}
          </span>
        ),
    },
  ];
  const table = (rows: Alert[] | undefined) => (
    <Table
      stacks
      caption="Alerts, worst first"
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={5}
      marked={one => one.state === 'firing' && one.priority === 'critical'}
      empty={
        <Empty title={state || priority ? 'No alert is like this' : 'Nothing is the matter'}>
          <p>
            {state || priority
              ? 'Choose another state or priority.'
              : 'What a rule finds shows here as it happens.'}
          </p>
        </Empty>
      }
    />
  );
  return (
    <Panel
      title="Now"
      aside={
        <div className="choices">
          <Choice
            label="State"
            value={state}
            options={STATES}
            onChange={next => set({ state: next })}
          />
          <Choice
            label="Priority"
            value={priority}
            options={[['', 'All'], ...PRIORITIES.map((one): [string, string] => [one, one])]}
            onChange={next => set({ priority: next })}
          />
        </div>
      }
    >
      <Asked of={alerts} waiting={table(undefined)}>
        {answer => (
          <>
            {table(worstFirst(answer.alerts))}
            {answer.next !== undefined && (
              <p className="faint under">Older ones are not shown; choose a state.</p>
            )}
          </>
        )}
      </Asked>
      {acknowledges && (
        <Acknowledge alert={acknowledges} onClose={() => setAcknowledges(undefined)} />
      )}
      {silences && <SilenceFirst alert={silences} onClose={() => setSilences(undefined)} />}
    </Panel>
  );
}

function State({ of }: { of: Alert }) {
  if (of.state === 'resolved') {
    return (
      <>
        resolved
        <div className="faint">
          <When ms={of.resolved_at_ms} />
        </div>
      </>
    );
  }
  return (
    <>
      <strong>{of.state}</strong>
      {of.acknowledged_by && (
        <div className="faint">
          by {of.acknowledged_by}, <Ago ms={of.acknowledged_at_ms} />
          {of.note && `: ${of.note}`}
        </div>
      )}
      {of.silenced_until_ms !== undefined && (
        <div className="faint">
          silent until <When ms={of.silenced_until_ms} />
        </div>
      )}
      {of.state === 'firing' && of.escalates_at_ms !== undefined && (
        <div className="faint">
          goes up <Until ms={of.escalates_at_ms} />
        </div>
      )}
    </>
  );
}
