import { useState } from 'react';
import { SubjectLink } from '../evidence/event-table.tsx';
import { Asked, Empty } from '../parts/asked.tsx';
import { Badge, type Tone } from '../parts/badge.tsx';
import { ScopedButton } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import type { IconName } from '../parts/icon.tsx';
import { Page, Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import type { Approval, Approvals } from '../site/contract.ts';
import { useMe } from '../site/me.tsx';
import { roleName } from '../site/rights.ts';
import { Ago, Until, When } from '../words/when.tsx';

const STATES: Record<Approval['state'], [Tone, IconName]> = {
  open: ['info', 'wait'],
  approved: ['ok', 'ok'],
  refused: ['calm', 'bad'],
  failed: ['bad', 'warn'],
  expired: ['calm', 'wait'],
};

/** What somebody asked for and a second person has to say yes to. */
export function ApprovalsPage() {
  const approvals = useAsk<Approvals>('/v1/approvals');
  const me = useMe();
  const [decides, setDecides] = useState<{ approval: Approval; verb: 'approve' | 'refuse' }>();

  /** Why the caller cannot be the second person, if so. */
  const hindrance = (one: Approval): string | undefined => {
    if (one.asked_by === me.actor) return 'You asked for it: it takes somebody else.';
    if (!me.grants.some(grant => grant.role !== one.asked_as && grant.role !== 'viewer')) {
      return `It was asked as ${roleName(one.asked_as)}: it takes another role.`;
    }
    return undefined;
  };

  const open: Col<Approval>[] = [
    {
      head: 'What',
      cell: one => (
        <>
          {one.sentence}
          <div className="faint">
            <SubjectLink subject={one.subject} />
          </div>
        </>
      ),
    },
    {
      head: 'Asked',
      cell: one => (
        <>
          {one.asked_by}
          <div className="faint">
            as {roleName(one.asked_as)}, <Ago ms={one.asked_at_ms} />
          </div>
        </>
      ),
    },
    { head: 'Ends', cell: one => <Until ms={one.until_ms} />, wide: true },
    {
      head: 'Your word',
      cell: one => {
        const hinders = hindrance(one);
        if (hinders) return <span className="faint">{hinders}</span>;
        return (
          <span className="row-buttons">
            <ScopedButton
              scope="approvals.write"
              kind="main"
              icon="ok"
              onClick={() => setDecides({ approval: one, verb: 'approve' })}
            >
              Approve…
            </ScopedButton>
            <ScopedButton
              scope="approvals.write"
              onClick={() => setDecides({ approval: one, verb: 'refuse' })}
            >
              Refuse…
            </ScopedButton>
          </span>
        );
      },
    },
  ];
  const over: Col<Approval>[] = [
    { head: 'What', cell: one => one.sentence },
    {
      head: 'State',
      cell: one => {
        const [tone, icon] = STATES[one.state] ?? ['calm', 'dot'];
        return (
          <>
            <Badge tone={tone} icon={icon}>
              {one.state}
            </Badge>
            {one.reason && <div className="faint">{one.reason}</div>}
          </>
        );
      },
    },
    { head: 'Asked by', cell: one => one.asked_by, wide: true },
    { head: 'Decided by', cell: one => one.decided_by ?? '–', wide: true },
    { head: 'When', cell: one => <When ms={one.decided_at_ms ?? one.until_ms} /> },
  ];
  const tableOf = (
    caption: string,
    cols: Col<Approval>[],
    rows: Approval[] | undefined,
    none: string,
  ) => (
    <Table
      stacks
      caption={caption}
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={2}
      empty={
        <Empty title={none}>
          {cols === open && <p>What needs two people is set under Users.</p>}
        </Empty>
      }
    />
  );
  return (
    <Page
      title="Approvals"
      lead="Asked for, and not done until a second person of another role says yes."
    >
      <Asked
        of={approvals}
        waiting={<Panel title="Open">{tableOf('Open', open, undefined, '')}</Panel>}
      >
        {answer => (
          <>
            <Panel title="Open">
              {tableOf(
                'Open approvals',
                open,
                answer.approvals.filter(one => one.state === 'open'),
                'Nothing waits for a second person',
              )}
            </Panel>
            <Panel title="Decided">
              {tableOf(
                'Decided approvals',
                over,
                answer.approvals.filter(one => one.state !== 'open'),
                'Nothing was decided yet',
              )}
            </Panel>
          </>
        )}
      </Asked>
      {decides && <Decide {...decides} onClose={() => setDecides(undefined)} />}
    </Page>
  );
}

function Decide({
  approval,
  verb,
  onClose,
}: {
  approval: Approval;
  verb: 'approve' | 'refuse';
  onClose: () => void;
}) {
  return (
    <Confirm
      title={verb === 'approve' ? 'Approve it?' : 'Refuse it?'}
      verb={verb === 'approve' ? 'Approve' : 'Refuse'}
      danger={verb === 'refuse'}
      says={
        <>
          <p>
            <strong>{approval.sentence}</strong>
          </p>
          <p>
            Asked by {approval.asked_by}, as {roleName(approval.asked_as)}.{' '}
            {verb === 'approve'
              ? 'It is done as soon as you approve it, in both names.'
              : 'It is not done, and whoever wants it asks anew.'}
          </p>
        </>
      }
      order={() => ({ path: `/v1/approvals/${encodeURIComponent(approval.id)}/${verb}` })}
      onClose={onClose}
    />
  );
}
