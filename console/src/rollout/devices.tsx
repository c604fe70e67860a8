import { useInfiniteQuery } from '@tanstack/react-query';
import { Asked, Empty } from '../parts/asked.tsx';
import { Badge, type Tone } from '../parts/badge.tsx';
import { Button } from '../parts/button.tsx';
import type { IconName } from '../parts/icon.tsx';
import { Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { Link, pathTo } from '../route.tsx';
import { ending } from '../site/ask.ts';
import { get, withQuery } from '../site/call.ts';
import type { RolloutDevice, RolloutDevices } from '../site/contract.ts';
import { When } from '../words/when.tsx';

const KNOWN: Record<string, [string, Tone, IconName]> = {
  issued: ['may install', 'info', 'run'],
  silent: ['silent', 'warn', 'wait'],
  proven: ['proven', 'ok', 'ok'],
  had: ['had it', 'ok', 'ok'],
  failed: ['failed', 'bad', 'bad'],
  back: ['told to go back', 'warn', 'back'],
  back_silent: ['told, and silent', 'warn', 'wait'],
  stuck: ['could not go back', 'bad', 'stop'],
  went_back: ['went back', 'calm', 'back'],
};

const COLS: Col<RolloutDevice>[] = [
  {
    head: 'Device',
    className: 'id',
    cell: one => <Link to={pathTo('devices', one.device)}>{one.device}</Link>,
  },
  {
    head: 'Known of it',
    cell: one => {
      const [word, tone, icon] = KNOWN[one.known] ?? [one.known, 'calm', 'dot'];
      return (
        <Badge tone={tone} icon={icon}>
          {word}
        </Badge>
      );
    },
  },
  {
    head: 'Ran before',
    cell: one => <code title={one.was_sha256}>{one.was_sha256.slice(0, 12)}…</code>,
    wide: true,
  },
  { head: 'Due', cell: one => <When ms={one.due_ms} /> },
];

const PAGE = 100;

/** Who has leave, and what became of each. */
export function RolledDevices({ id, isMoving }: { id: string; isMoving: boolean }) {
  const path = `/v1/rollouts/${encodeURIComponent(id)}/devices`;
  const devices = useInfiniteQuery({
    queryKey: [path],
    queryFn: ({ pageParam, signal }) =>
      ending(get<RolloutDevices>(withQuery(path, { after: pageParam, limit: PAGE }), signal)),
    initialPageParam: '',
    getNextPageParam: last => last.next,
    refetchInterval: isMoving ? 5_000 : 60_000,
  });
  const table = (rows: RolloutDevice[] | undefined) => (
    <Table
      caption="Devices with leave"
      cols={COLS}
      rows={rows}
      rowKey={one => one.device}
      waiting={3}
      empty={<Empty title="Nobody has leave yet" />}
    />
  );
  return (
    <Panel title="Devices with leave">
      <Asked of={devices} waiting={table(undefined)}>
        {({ pages }) => (
          <>
            {table(pages.flatMap(page => page.devices))}
            {devices.hasNextPage && (
              <p className="more">
                <Button busy={devices.isFetchingNextPage} onClick={() => devices.fetchNextPage()}>
                  More
                </Button>
              </p>
            )}
          </>
        )}
      </Asked>
    </Panel>
  );
}
