import { useInfiniteQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Decide, type Verb, YourWord } from '../approvals/decide.tsx';
import { personOf } from '../approvals/second.ts';
import { StateBadge } from '../approvals/state.tsx';
import { SubjectLink } from '../evidence/event-table.tsx';
import { Asked, Empty } from '../parts/asked.tsx';
import { Button } from '../parts/button.tsx';
import { Page, Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { Link, pathTo } from '../route.tsx';
import { ending, OPEN_APPROVALS, useAsk } from '../site/ask.ts';
import { get, withQuery } from '../site/call.ts';
import type { Approval, Approvals } from '../site/contract.ts';
import { roleName } from '../site/rights.ts';
import { Ago, Until, When } from '../words/when.tsx';

/** What somebody asked for and a second person has to say yes to. */
export function ApprovalsPage() {
  return (
    <Page
      title="Approvals"
      lead="Asked for, and not done until a second person of another role says yes."
    >
      <OpenPanel />
      <DecidedPanel />
    </Page>
  );
}

const WHAT: Col<Approval> = {
  head: 'What',
  cell: one => (
    <>
      <Link to={pathTo('approvals', one.id)}>{one.sentence}</Link>
      <div className="faint">
        <SubjectLink subject={one.subject} />
      </div>
    </>
  ),
};

function OpenPanel() {
  const open = useAsk<Approvals>(OPEN_APPROVALS);
  // Here and not in a row: whatever is decided leaves the table, and what came of it stays to be read.
  const [decides, setDecides] = useState<{ approval: Approval; verb: Verb }>();
  const cols: Col<Approval>[] = [
    WHAT,
    {
      head: 'Asked by',
      cell: one => (
        <>
          {personOf(one.asked_by)}
          <div className="faint">
            as {roleName(one.asked_as)}, <Ago ms={one.asked_at_ms} />
          </div>
        </>
      ),
    },
    { head: 'Ends', cell: one => <Until ms={one.until_ms} />, className: 'nowrap' },
    {
      head: 'Your word',
      cell: one => <YourWord of={one} say={verb => setDecides({ approval: one, verb })} />,
    },
  ];
  const table = (rows: Approval[] | undefined) => (
    <Table
      stacks
      caption="Open approvals"
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={2}
      empty={
        <Empty title="Nothing waits for a second person">
          <p>
            What takes two people is set under <Link to={pathTo('users')}>Users</Link>.
          </p>
        </Empty>
      }
    />
  );
  return (
    <Panel title="Open">
      <Asked of={open} waiting={table(undefined)}>
        {answer => table(answer.approvals)}
      </Asked>
      {decides && <Decide {...decides} onClose={() => setDecides(undefined)} />}
    </Panel>
  );
}

/** As many as control gives at once, and more than a site has open ones: each page has some that are decided. */
const PAGE = 100;

function DecidedPanel() {
  const newest = useInfiniteQuery({
    queryKey: ['/v1/approvals', 'decided'],
    queryFn: ({ pageParam, signal }) =>
      ending(
        get<Approvals>(withQuery('/v1/approvals', { after: pageParam, limit: PAGE }), signal),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: last => last.next,
    refetchInterval: 30_000,
  });
  const cols: Col<Approval>[] = [
    WHAT,
    {
      head: 'State',
      cell: one => (
        <>
          <StateBadge state={one.state} />
          {one.reason && <div className="faint">{one.reason}</div>}
        </>
      ),
    },
    { head: 'Asked by', cell: one => personOf(one.asked_by) },
    { head: 'Decided by', cell: one => (one.decided_by ? personOf(one.decided_by) : '–') },
    { head: 'When', cell: one => <When ms={one.decided_at_ms ?? one.until_ms} /> },
  ];
  const table = (rows: Approval[] | undefined) => (
    <Table
      stacks
      caption="Decided approvals, newest first"
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={2}
      empty={<Empty title="Nothing was decided yet" />}
    />
  );
  return (
    <Panel title="Decided">
      <Asked of={newest} waiting={table(undefined)}>
        {({ pages }) => (
          <>
            {table(pages.flatMap(page => page.approvals).filter(one => one.state !== 'open'))}
            {newest.hasNextPage && (
              <p className="more">
                <Button busy={newest.isFetchingNextPage} onClick={() => newest.fetchNextPage()}>
                  Older ones
                </Button>
              </p>
            )}
          </>
        )}
      </Asked>
    </Panel>
  );
}
