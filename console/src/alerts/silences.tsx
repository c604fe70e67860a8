import { useState } from 'react';
import { Asked, Empty } from '../parts/asked.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import { Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import type { Silence, Silences } from '../site/contract.ts';
import { Ago, Until, useNow } from '../words/when.tsx';
import { SilenceAhead } from './silence.tsx';

/** What nobody is told of, until when and why. */
export function SilencesPanel() {
  const silences = useAsk<Silences>('/v1/silences');
  const now = useNow();
  const [ends, setEnds] = useState<Silence>();
  const [begins, setBegins] = useState(false);
  const cols: Col<Silence>[] = [
    { head: 'What', cell: one => <strong>{coveredBy(one)}</strong> },
    { head: 'Why', cell: one => one.reason },
    { head: 'By', cell: one => one.by, wide: true },
    { head: 'Since', cell: one => <Ago ms={one.at_ms} />, wide: true },
    {
      head: 'Ends',
      cell: one => (isOver(one, now) ? 'over' : <Until ms={one.until_ms} />),
    },
    {
      head: 'Now',
      cell: one =>
        isOver(one, now) ? (
          ''
        ) : (
          <span className="row-buttons">
            <ScopedButton scope="alerts.write" kind="quiet" onClick={() => setEnds(one)}>
              End…
            </ScopedButton>
          </span>
        ),
    },
  ];
  const table = (rows: Silence[] | undefined) => (
    <Table
      stacks
      caption="Silences"
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={2}
      empty={
        <Empty title="Nothing is silenced">
          <p>Whoever works on a device says so before, and wakes nobody.</p>
        </Empty>
      }
    />
  );
  return (
    <Panel
      title="Silences"
      aside={
        <ScopedButton scope="alerts.write" icon="plus" onClick={() => setBegins(true)}>
          New silence…
        </ScopedButton>
      }
    >
      <Asked of={silences} waiting={table(undefined)}>
        {answer => table(answer.silences)}
      </Asked>
      {begins && <SilenceAhead onClose={() => setBegins(false)} />}
      {ends && (
        <Confirm
          title="End this silence?"
          verb="End the silence"
          says={<p>What it covers is said again from now on.</p>}
          order={() => ({ path: `/v1/silences/${ends.id}/end` })}
          onClose={() => setEnds(undefined)}
        />
      )}
    </Panel>
  );
}

function coveredBy({ rule, subject }: Silence): string {
  return `${rule ?? 'everything'} about ${subject ?? 'anything'}`;
}

function isOver(silence: Silence, now: number): boolean {
  return silence.ended_at_ms !== undefined || silence.until_ms <= now;
}
