import { useInfiniteQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Asked, Empty, Lines } from '../parts/asked.tsx';
import { Button } from '../parts/button.tsx';
import { Concerns } from '../parts/concerns.tsx';
import { Choice } from '../parts/field.tsx';
import { Icon, type IconName } from '../parts/icon.tsx';
import { Panel } from '../parts/page.tsx';
import { Link, pathTo } from '../route.tsx';
import { ending } from '../site/ask.ts';
import { get, withQuery } from '../site/call.ts';
import type { History as Page } from '../site/contract.ts';
import { When } from '../words/when.tsx';

const KINDS: [string, string][] = [
  ['', 'Everything'],
  ['firmware', 'Firmware'],
  ['rollout', 'Rollouts'],
  ['standing', 'Standing'],
  ['key', 'Keys'],
  ['gateway', 'Gateways'],
  ['gap', 'Gaps'],
  ['refusal', 'Refusals'],
  ['act', 'Acts of people'],
];

const ICONS: Record<string, IconName> = {
  key: 'approval',
  firmware: 'release',
  gateway: 'fleet',
  standing: 'stop',
  refusal: 'bad',
  gap: 'minus',
  rollout: 'rollout',
  act: 'users',
};

const STRETCHES: [string, string][] = [
  ['1', 'the last day'],
  ['7', 'the last week'],
  ['31', 'the last month'],
  ['366', 'the last year'],
];

const DAY_MS = 86_400_000;
const PAGE_MOMENTS = 200;

/** A device's life, newest first: what it ran, which keys it had, how it stood, who did what to it. */
export function History({ device }: { device: string }) {
  const [kind, setKind] = useState('');
  const [days, setDays] = useState('31');
  const path = `/v1/devices/${encodeURIComponent(device)}/history`;
  // Whole hours, so that the same stretch is the same question for a while.
  const from_ms = Math.floor(Date.now() / 3_600_000) * 3_600_000 - Number(days) * DAY_MS;
  const history = useInfiniteQuery({
    queryKey: [path, kind, from_ms],
    queryFn: ({ pageParam, signal }) =>
      ending(
        get<Page>(
          withQuery(path, { kind, from_ms, after: pageParam, limit: PAGE_MOMENTS }),
          signal,
        ),
      ),
    initialPageParam: '',
    getNextPageParam: last => last.next,
    refetchInterval: 15_000,
  });
  return (
    <Panel
      title="History"
      aside={
        <div className="choices">
          <Choice label="Show" value={kind} options={KINDS} onChange={setKind} />
          <Choice label="Of" value={days} options={STRETCHES} onChange={setDays} />
        </div>
      }
    >
      <Asked of={history} waiting={<Lines n={6} />}>
        {({ pages }) => {
          const moments = pages.flatMap(page => page.moments).reverse();
          const missing = [...new Set(pages.flatMap(page => page.missing ?? []))];
          return (
            <>
              <Concerns of={missing} />
              {moments.length === 0 && <Empty title="Nothing of this kind in this time" />}
              {history.hasNextPage && (
                <p className="more">
                  <Button busy={history.isFetchingNextPage} onClick={() => history.fetchNextPage()}>
                    There is newer: show more
                  </Button>
                </p>
              )}
              <ol className="moments">
                {moments.map(moment => (
                  <li key={`${moment.at_ms} ${moment.event ?? ''} ${moment.sentence}`}>
                    <span className="icon-of" title={moment.kind}>
                      <Icon name={ICONS[moment.kind] ?? 'dot'} />
                      <span className="unseen">{moment.kind}: </span>
                    </span>
                    <span className="at">
                      <When ms={moment.at_ms} />
                    </span>
                    <span className="what">
                      {moment.sentence}
                      {moment.actor && <span className="faint"> by {moment.actor}</span>}
                    </span>
                    {moment.event !== undefined && (
                      <Link
                        className="faint num"
                        to={pathTo('evidence', undefined, {
                          subject: `device/${device}`,
                          event: String(moment.event),
                        })}
                      >
                        event {moment.event}
                      </Link>
                    )}
                  </li>
                ))}
              </ol>
            </>
          );
        }}
      </Asked>
    </Panel>
  );
}
