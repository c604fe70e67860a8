import { Asked, Empty } from '../parts/asked.tsx';
import { Button, ScopedButton } from '../parts/button.tsx';
import { Icon } from '../parts/icon.tsx';
import { Page } from '../parts/page.tsx';
import { ProblemNote } from '../parts/problem.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { go, Link, pathTo } from '../route.tsx';
import { useAsk, useOrder } from '../site/ask.ts';
import type { Release, Releases, Summary } from '../site/contract.ts';
import { useMe } from '../site/me.tsx';
import { may } from '../site/rights.ts';
import { count, size } from '../words/number.ts';
import { useNow, When } from '../words/when.tsx';
import { Digest } from './device.tsx';

/** What the vendor has published and this site has verified: what can be rolled out, and how many run it. */
export function ReleasesPage() {
  const releases = useAsk<Releases>('/v1/releases');
  const summary = useAsk<Summary>('/v1/inventory/summary');
  const refresh = useOrder<Releases>();
  const me = useMe();
  const running = (one: Release) => summary.data?.versions[`${one.product} ${one.version}`] ?? 0;
  const cols: Col<Release>[] = [
    {
      head: 'Release',
      cell: one => (
        <>
          {one.product} <strong className="num">{one.version}</strong>
        </>
      ),
    },
    {
      head: 'Run it',
      cell: one =>
        summary.data ? (
          <Link to={pathTo('fleet', undefined, { version: `${one.product} ${one.version}` })}>
            {count(running(one))}
          </Link>
        ) : (
          '–'
        ),
      num: true,
    },
    { head: 'Hardware', cell: one => one.hardware.join(', '), wide: true },
    { head: 'Security version', cell: one => one.security_version, num: true, wide: true },
    { head: 'Must pass', cell: one => one.must_pass.join(', ') || '–', wide: true },
    { head: 'Size', cell: one => size(one.length), num: true, wide: true },
    {
      head: 'Image',
      cell: one => <Digest of={one.sha256} what="digest of the image" />,
      wide: true,
    },
    {
      head: 'Roll out',
      cell: one =>
        may(me, 'rollouts.write') ? (
          <Button
            kind="quiet"
            icon="rollout"
            aria-label={`Roll out ${one.product} ${one.version}`}
            onClick={() =>
              go(pathTo('new-rollout', undefined, { product: one.product, version: one.version }))
            }
          >
            Roll out
          </Button>
        ) : (
          <span className="faint">a releaser may</span>
        ),
    },
  ];
  return (
    <Page
      title="Releases"
      lead="What the vendor has published, as this site has verified it."
      actions={
        <ScopedButton
          scope="releases.write"
          busy={refresh.isPending}
          onClick={() => refresh.mutate({ path: '/v1/releases/refresh' })}
        >
          Read the repository now
        </ScopedButton>
      }
    >
      {refresh.error && <ProblemNote error={refresh.error} />}
      <Asked
        of={releases}
        waiting={
          <Table
            caption="Releases"
            cols={cols}
            rows={undefined}
            rowKey={one => one.path}
            empty=""
            waiting={5}
          />
        }
      >
        {answer => (
          <>
            <Repository of={answer} />
            <Table
              caption="Releases"
              cols={cols}
              rows={answer.releases.toReversed()}
              rowKey={one => one.path}
              empty={
                <Empty title="The vendor has published nothing yet">
                  <p>
                    The vendor publishes with <code>plimsoll release publish</code>; it shows here
                    within seconds.
                  </p>
                </Empty>
              }
            />
          </>
        )}
      </Asked>
    </Page>
  );
}

const SOON_MS = 3 * 86_400_000;

function Repository({ of }: { of: Releases }) {
  const now = useNow();
  const left = of.until_ms - now;
  return (
    <>
      {of.failed && (
        <div className="note bad">
          <Icon name="warn" />
          <div>
            <strong>The repository could not be read the last time</strong>
            <p>{of.failed}</p>
            <p className="faint">What is listed counts all the same, until its signatures end.</p>
          </div>
        </div>
      )}
      {left < SOON_MS && (
        <div className={left < 0 ? 'note bad' : 'note warn'}>
          <Icon name="warn" />
          <div>
            <strong>
              {left < 0 ? 'The vendor’s signatures have ended' : 'The vendor’s signatures end soon'}
            </strong>
            <p>
              Once they have, nothing new is ordered, and what runs, runs on. The vendor signs anew.
            </p>
          </div>
        </div>
      )}
      <p className="faint">
        Signed until <When ms={of.until_ms} />. Versions: root {of.root}, timestamp {of.timestamp},
        snapshot {of.snapshot}, targets {of.targets}.
      </p>
    </>
  );
}
