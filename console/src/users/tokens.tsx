import { useState } from 'react';
import { Asked, Empty } from '../parts/asked.tsx';
import { Badge } from '../parts/badge.tsx';
import { Button, CopyButton } from '../parts/button.tsx';
import { Confirm, Dialog } from '../parts/dialog.tsx';
import { Checks, Field } from '../parts/field.tsx';
import { Icon } from '../parts/icon.tsx';
import { Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import {
  type MadeToken,
  type Scope,
  TOKEN_DAYS_MAX,
  type Token,
  type Tokens,
} from '../site/contract.ts';
import { useMe } from '../site/me.tsx';
import { may } from '../site/rights.ts';
import { Ago, Until, useNow } from '../words/when.tsx';
import { paths } from './paths.ts';

/** What programs show instead of a password. */
export function TokensPanel() {
  const tokens = useAsk<Tokens>(paths.tokens);
  const me = useMe();
  const now = useNow();
  const [makes, setMakes] = useState(false);
  const [made, setMade] = useState<MadeToken>();
  const [revokes, setRevokes] = useState<Token>();
  const cols: Col<Token>[] = [
    { head: 'Token', cell: one => <strong>{one.name}</strong> },
    { head: 'Of', cell: one => one.user },
    {
      head: 'May',
      cell: one => (
        <>
          {one.scopes.join(', ')}
          {one.sites && <div className="faint">at {one.sites.join(', ')}</div>}
          {one.groups && <div className="faint">rolls out to {one.groups.join(', ')}</div>}
        </>
      ),
      wide: true,
    },
    { head: 'Used', cell: one => <Ago ms={one.used_at_ms} />, wide: true },
    {
      head: 'Ends',
      cell: one =>
        one.revoked_at_ms !== undefined ? (
          <Badge tone="calm" icon="bad">
            revoked
          </Badge>
        ) : one.until_ms <= now ? (
          <Badge tone="calm" icon="wait">
            ended
          </Badge>
        ) : (
          <Until ms={one.until_ms} />
        ),
    },
    {
      head: 'Change',
      cell: one =>
        one.revoked_at_ms === undefined &&
        one.until_ms > now &&
        (one.user === me.user || may(me, 'users.narrow')) && (
          <Button kind="quiet" aria-label={`Revoke ${one.name}`} onClick={() => setRevokes(one)}>
            Revoke…
          </Button>
        ),
    },
  ];
  const table = (rows: Token[] | undefined) => (
    <Table
      stacks
      caption="Tokens"
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={2}
      empty={
        <Empty title="There is no token yet">
          <p>A program signs in with a token of its own, and may do no more than it needs.</p>
        </Empty>
      }
    />
  );
  return (
    <Panel
      title="Tokens"
      aside={
        <Button
          icon="plus"
          aria-disabled={!me.user || undefined}
          title={me.user ? undefined : 'Only a person’s own session makes tokens.'}
          onClick={() => me.user && setMakes(true)}
        >
          New token…
        </Button>
      }
    >
      <Asked of={tokens} waiting={table(undefined)}>
        {answer => table(answer.tokens)}
      </Asked>
      {makes && <NewTokenDialog onMade={setMade} onClose={() => setMakes(false)} />}
      {made && <Secret of={made} onClose={() => setMade(undefined)} />}
      {revokes && (
        <Confirm
          title={`Revoke the token ${revokes.name}?`}
          verb="Revoke"
          danger
          says={<p>Whatever shows it is refused from now on. It cannot be given back.</p>}
          order={() => ({ method: 'DELETE', path: paths.token(revokes.id) })}
          onClose={() => setRevokes(undefined)}
        />
      )}
    </Panel>
  );
}

function NewTokenDialog({
  onMade,
  onClose,
}: {
  onMade: (made: MadeToken) => void;
  onClose: () => void;
}) {
  const me = useMe();
  const [name, setName] = useState('');
  const [days, setDays] = useState('90');
  const [scopes, setScopes] = useState<Scope[]>(['telemetry.read']);
  return (
    <Confirm<MadeToken>
      title="New token"
      verb="Make the token"
      says={<p>It can never do more than you can, and ends with you. Its secret is shown once.</p>}
      order={() => ({
        path: paths.tokens,
        body: { name: name.trim(), scopes, days: Number(days) },
      })}
      onClose={onClose}
      onDone={onMade}
    >
      <Field
        label="What it is for"
        required
        placeholder="nightly report"
        value={name}
        onChange={setName}
      />
      <Field
        label="Days until it ends"
        type="number"
        required
        min={1}
        max={TOKEN_DAYS_MAX}
        value={days}
        onChange={setDays}
      />
      <Checks
        legend="What it may"
        options={me.scopes.map(scope => ({ value: scope, shown: scope }))}
        chosen={scopes}
        onChange={setScopes}
      />
    </Confirm>
  );
}

function Secret({ of, onClose }: { of: MadeToken; onClose: () => void }) {
  return (
    <Dialog title={`The secret of ${of.token.name}`} onClose={onClose}>
      <div className="note warn">
        <Icon name="warn" />
        <p>
          It is shown this once. The site keeps only its digest: if it is lost, make another token.
        </p>
      </div>
      <p className="command">
        <code className="secret">{of.secret}</code>
        <CopyButton text={of.secret} what="the secret" />
      </p>
      <p className="faint">
        A program shows it as <code>Authorization: Bearer …</code>.
      </p>
      <div className="buttons">
        <Button kind="main" onClick={onClose}>
          I have it
        </Button>
      </div>
    </Dialog>
  );
}
