import { useInfiniteQuery } from '@tanstack/react-query';
import { Asked, Empty } from '../parts/asked.tsx';
import { Badge } from '../parts/badge.tsx';
import { Button } from '../parts/button.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { Link, pathTo } from '../route.tsx';
import { ending } from '../site/ask.ts';
import { get, withQuery } from '../site/call.ts';
import type { Event, Events } from '../site/contract.ts';
import { count } from '../words/number.ts';
import { When } from '../words/when.tsx';

/** Events of one subject, or of all, in the order in which they were done. */
export function EventTable({
  subject,
  limit,
  from = 0,
  marked,
}: {
  subject: string;
  limit: number;
  from?: number;
  marked?: number | undefined;
}) {
  const events = useInfiniteQuery({
    queryKey: ['/v1/events', subject, limit, from],
    queryFn: ({ pageParam, signal }) =>
      ending(
        get<Events>(
          withQuery('/v1/events', {
            subject,
            limit,
            after: pageParam === 0 ? undefined : pageParam - 1,
          }),
          signal,
        ),
      ),
    // `after` is the number before the first one that is wanted.
    initialPageParam: from,
    getNextPageParam: last => (last.next === undefined ? undefined : last.next + 1),
    refetchInterval: 10_000,
  });
  const covered = events.data?.pages.at(-1)?.covered ?? 0;
  const cols: Col<Event>[] = [
    { head: 'No.', cell: event => event.sequence, num: true, wide: true },
    { head: 'When', cell: event => <When ms={event.at_ms} /> },
    { head: 'Who', cell: event => event.actor },
    { head: 'Did', cell: event => <code className="action">{event.action}</code> },
    ...(subject
      ? []
      : [
          {
            head: 'To',
            cell: (event: Event) => <SubjectLink subject={event.subject} />,
            wide: true,
          },
        ]),
    {
      head: 'Detail',
      cell: event => <Detail of={event.detail} />,
      wide: true,
      className: 'detail',
    },
    {
      head: 'Proof',
      cell: event =>
        event.sequence < covered ? (
          <Badge tone="ok" icon="ok">
            in the log
          </Badge>
        ) : (
          <Badge tone="warn" icon="wait">
            on the way
          </Badge>
        ),
    },
  ];
  const table = (rows: Event[] | undefined) => (
    <Table
      caption="Events"
      cols={cols}
      rows={rows}
      rowKey={event => event.sequence}
      waiting={8}
      marked={event => event.sequence === marked}
      empty={
        <Empty title={subject ? 'Nothing was done to it' : 'Nothing was done yet'}>
          {subject && (
            <p>
              There is no event of <code>{subject}</code>. A subject is written like{' '}
              <code>device/pump-1</code> or <code>rollout/pump-1.1</code>.
            </p>
          )}
        </Empty>
      }
    />
  );
  return (
    <Asked of={events} waiting={table(undefined)}>
      {({ pages }) => (
        <>
          {table(pages.flatMap(page => page.events))}
          {events.hasNextPage && (
            <p className="more">
              <Button busy={events.isFetchingNextPage} onClick={() => events.fetchNextPage()}>
                The next {count(limit)}
              </Button>
            </p>
          )}
        </>
      )}
    </Asked>
  );
}

export function SubjectLink({ subject }: { subject: string }) {
  const [kind, ...rest] = subject.split('/');
  const id = rest.join('/');
  if (kind === 'device' || kind === 'gateway')
    return <Link to={pathTo('devices', id)}>{subject}</Link>;
  if (kind === 'rollout') return <Link to={pathTo('rollouts', id)}>{subject}</Link>;
  return <>{subject}</>;
}

function Detail({ of }: { of: unknown }) {
  if (of === null || typeof of !== 'object') return <>{String(of ?? '')}</>;
  const entries = Object.entries(of).filter(([, what]) => what !== null);
  return (
    <span className="pairs-line">
      {entries.map(([name, what]) => {
        const text = typeof what === 'string' ? what : JSON.stringify(what);
        const isLong = text.length > 48;
        return (
          <span key={name}>
            <span className="faint">{name}</span>{' '}
            <span title={isLong ? text : undefined}>{isLong ? `${text.slice(0, 40)}…` : text}</span>
          </span>
        );
      })}
    </span>
  );
}
