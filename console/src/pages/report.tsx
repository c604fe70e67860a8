import { useState } from 'react';
import { Asked, Empty, Lines } from '../parts/asked.tsx';
import { PhaseBadge } from '../parts/badge.tsx';
import { Button } from '../parts/button.tsx';
import { Concerns } from '../parts/concerns.tsx';
import { Facts, Page, Panel } from '../parts/page.tsx';
import { Table } from '../parts/table.tsx';
import { Link, pathTo } from '../route.tsx';
import { useAsk } from '../site/ask.ts';
import { withQuery } from '../site/call.ts';
import type { ReportedRollout, Tally, WeeklyReport } from '../site/contract.ts';
import { count, counted } from '../words/number.ts';
import { day, span } from '../words/time.ts';
import { When } from '../words/when.tsx';

const WEEK_MS = 7 * 86_400_000;
/** Names of silent devices on paper; the fleet's page has them all. */
const NAMED_MAX = 40;

/** Seven days on two sheets of paper. */
export default function ReportPage() {
  const [until, setUntil] = useState<number>();
  const report = useAsk<WeeklyReport>(withQuery('/v1/reports/weekly', { until_ms: until }), {
    keeps: true,
    everyMs: 60_000,
  });
  const shown = report.data;
  return (
    <Page
      title="Weekly report"
      className="report"
      lead={shown ? `${shown.site}, ${day(shown.from_ms)} to ${day(shown.until_ms)}` : '\u00a0'}
      actions={
        <>
          <Button icon="left" onClick={() => shown && setUntil(shown.until_ms - WEEK_MS)}>
            The week before
          </Button>
          {until !== undefined && (
            <Button
              onClick={() => {
                const next = until + WEEK_MS;
                setUntil(next > Date.now() ? undefined : next);
              }}
            >
              The week after
            </Button>
          )}
          <Button kind="main" icon="print" onClick={() => print()}>
            Print
          </Button>
        </>
      }
    >
      <Asked of={report} waiting={<Lines n={16} />}>
        {of => <Sheets of={of} />}
      </Asked>
    </Page>
  );
}

function Sheets({ of }: { of: WeeklyReport }) {
  const broken = Object.entries(of.violations);
  return (
    <>
      <Concerns of={of.notes} />
      <Panel title="In short">
        <p className="short">
          {counted(of.heard, 'device')} of {count(of.enrolled)} enrolled{' '}
          {of.heard === 1 ? 'was' : 'were'} heard;{' '}
          {of.silent.length === 0 ? 'none was silent' : `${count(of.silent.length)} silent`}.{' '}
          {broken.length === 0
            ? 'Every invariant held.'
            : `${counted(broken.length, 'invariant')} did not hold: see below.`}
        </p>
        <Facts
          of={[
            ['Devices', count(of.devices)],
            ['Enrolled', count(of.enrolled)],
            ['Heard this week', count(of.heard)],
            ['Quarantined', count(of.quarantined)],
            ['Revoked', count(of.revoked)],
            ['Readings', count(of.readings)],
            ['Gaps', count(of.gaps)],
            ['Messages not believed', count(of.quarantined_messages)],
          ]}
        />
      </Panel>
      <div className="halves">
        <Panel title="What runs">
          <Tallies of={of.versions} head="Release" none="No device has said what it runs" />
        </Panel>
        <Panel title="Alerts">
          <Tallies of={of.alerts_by_priority} head="Priority" none="No alert was raised" />
          {of.acknowledged_after_ms !== undefined && (
            <p className="under">
              Half of them were acknowledged within{' '}
              <strong>{span(of.acknowledged_after_ms)}</strong>.
            </p>
          )}
        </Panel>
      </div>
      <Panel title="Rollouts">
        <Table<ReportedRollout>
          caption="Rollouts of the week"
          rows={of.rollouts}
          rowKey={one => one.id}
          cols={[
            { head: 'Rollout', cell: one => <Link to={pathTo('rollouts', one.id)}>{one.id}</Link> },
            { head: 'State', cell: one => <PhaseBadge phase={one.phase} /> },
            { head: 'Cohort', cell: one => count(one.cohort), num: true },
            { head: 'Proven', cell: one => count(one.proven), num: true },
            { head: 'Failed', cell: one => count(one.failed), num: true },
            { head: 'Went back', cell: one => count(one.went_back), num: true },
          ]}
          empty={<Empty title="Nothing was rolled out this week" />}
        />
      </Panel>
      <div className="halves">
        <Panel title="What was done">
          <Tallies of={of.acts} head="Act" none="Nothing was done" />
        </Panel>
        <Panel title="Invariants that did not hold">
          <Tallies of={of.violations} head="Invariant" none="Every invariant held" />
        </Panel>
      </div>
      {of.silent.length > 0 && (
        <Panel title="Silent all week">
          <p className="names">
            {of.silent.slice(0, NAMED_MAX).map(id => (
              <Link key={id} to={pathTo('devices', id)}>
                {id}
              </Link>
            ))}
            {of.silent.length > NAMED_MAX && (
              <span>and {count(of.silent.length - NAMED_MAX)} more</span>
            )}
          </p>
        </Panel>
      )}
      <p className="faint under">
        Made <When ms={of.made_at_ms} /> from the registry, the store and the evidence log of{' '}
        {of.site}.
      </p>
    </>
  );
}

function Tallies({ of, head, none }: { of: Tally; head: string; none: string }) {
  return (
    <Table
      caption={head}
      rows={Object.entries(of).sort(([, a], [, b]) => b - a)}
      rowKey={([name]) => name}
      cols={[
        { head, cell: ([name]) => name },
        { head: 'How many', cell: ([, n]) => count(n), num: true },
      ]}
      empty={<Empty title={none} />}
    />
  );
}
