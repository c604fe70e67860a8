import { useState } from 'react';
import { TakesTwo } from '../approvals/waits.tsx';
import { Asked, Empty } from '../parts/asked.tsx';
import { Badge } from '../parts/badge.tsx';
import { Button, ScopedButton } from '../parts/button.tsx';
import { Confirm } from '../parts/dialog.tsx';
import { Field } from '../parts/field.tsx';
import { Panel } from '../parts/page.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import {
  type Grant,
  PASSWORD_CHARS_MIN,
  type Site,
  type Sites,
  type User,
  type Users,
} from '../site/contract.ts';
import { useMe } from '../site/me.tsx';
import { may, roleName } from '../site/rights.ts';
import { Ago } from '../words/when.tsx';
import { GrantFields } from './grants.tsx';
import { paths } from './paths.ts';

type Act =
  | { of: 'new' }
  | { of: 'grants' | 'password' | 'disable' | 'enable' | 'sessions'; user: User };

export function grantName(grant: Grant): string {
  return `${roleName(grant.role)}${grant.site ? ` at ${grant.site}` : ''}`;
}

export function UsersPanel() {
  const users = useAsk<Users>(paths.users);
  const me = useMe();
  const [act, setAct] = useState<Act>();
  const cols: Col<User>[] = [
    {
      head: 'User',
      cell: user => (
        <>
          <strong>{user.name}</strong>
          {user.name === me.user && <span className="faint"> (you)</span>}
        </>
      ),
    },
    {
      head: 'Roles',
      cell: user => user.grants.map(grantName).join(', ') || <span className="faint">none</span>,
    },
    {
      head: 'State',
      cell: user =>
        user.disabled ? (
          <Badge tone="warn" icon="stop">
            disabled
          </Badge>
        ) : (
          <Badge tone="ok" icon="ok">
            active
          </Badge>
        ),
    },
    { head: 'Signed in', cell: user => <Ago ms={user.signed_in_at_ms} />, wide: true },
    { head: 'Sessions', cell: user => user.sessions, num: true, wide: true },
    {
      head: 'Change',
      cell: user => (
        <span className="row-buttons">
          {may(me, 'users.write') && (
            <>
              <Button kind="quiet" onClick={() => setAct({ of: 'grants', user })}>
                Roles…
              </Button>
              <Button kind="quiet" onClick={() => setAct({ of: 'password', user })}>
                Password…
              </Button>
            </>
          )}
          {may(me, 'users.narrow') && user.sessions > 0 && (
            <Button kind="quiet" onClick={() => setAct({ of: 'sessions', user })}>
              End sessions…
            </Button>
          )}
          {user.disabled
            ? may(me, 'users.write') && (
                <Button kind="quiet" onClick={() => setAct({ of: 'enable', user })}>
                  Enable…
                </Button>
              )
            : may(me, 'users.narrow') && (
                <Button kind="quiet" onClick={() => setAct({ of: 'disable', user })}>
                  Disable…
                </Button>
              )}
        </span>
      ),
    },
  ];
  const table = (rows: User[] | undefined) => (
    <Table
      stacks
      caption="People"
      cols={cols}
      rows={rows}
      rowKey={user => user.name}
      waiting={4}
      empty={<Empty title="There is no user yet" />}
    />
  );
  return (
    <Panel
      title="People"
      aside={
        <ScopedButton scope="users.write" icon="plus" onClick={() => setAct({ of: 'new' })}>
          New user…
        </ScopedButton>
      }
    >
      <Asked of={users} waiting={table(undefined)}>
        {answer => table(answer.users)}
      </Asked>
      {act && <AskFirst act={act} onClose={() => setAct(undefined)} />}
    </Panel>
  );
}

function AskFirst({ act, onClose }: { act: Act; onClose: () => void }) {
  const sites = useAsk<Sites>(paths.sites);
  if (act.of === 'new') return <NewUser sites={sites.data?.sites ?? []} onClose={onClose} />;
  const { user } = act;
  switch (act.of) {
    case 'grants':
      return <Grants user={user} sites={sites.data?.sites ?? []} onClose={onClose} />;
    case 'password':
      return <Password user={user} onClose={onClose} />;
    case 'sessions':
      return (
        <Confirm
          title={`End the sessions of ${user.name}?`}
          verb="End sessions"
          says={<p>{user.name} is signed out everywhere, and can sign in again.</p>}
          order={() => ({ method: 'DELETE', path: paths.sessions(user.name) })}
          onClose={onClose}
        />
      );
    case 'disable':
      return (
        <Confirm
          title={`Disable ${user.name}?`}
          verb="Disable"
          danger
          says={
            <p>
              {user.name} is signed out everywhere and cannot sign in; no token of {user.name}{' '}
              counts. What was done in that name stays in the evidence.
            </p>
          }
          order={() => ({ path: paths.disable(user.name) })}
          onClose={onClose}
        />
      );
    case 'enable':
      return (
        <Confirm
          title={`Enable ${user.name}?`}
          verb="Enable"
          says={
            <p>
              {user.name} can sign in again, with the roles and the password from before.{' '}
              <TakesTwo what="grant_roles" />
            </p>
          }
          order={() => ({ path: paths.enable(user.name) })}
          onClose={onClose}
        />
      );
  }
}

function NewUser({ sites, onClose }: { sites: Site[]; onClose: () => void }) {
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const [grants, setGrants] = useState<Grant[]>([{ role: 'viewer' }]);
  return (
    <Confirm
      title="New user"
      verb="Make the user"
      says={
        <p>
          Give the password by a way that you trust; it can be changed under the user’s own name.{' '}
          <TakesTwo what="grant_roles" />
        </p>
      }
      order={() => ({ path: paths.users, body: { name, password, grants } })}
      onClose={onClose}
    >
      <Field
        label="Name"
        required
        pattern="[a-z0-9._\-]{1,64}"
        hint="Lower case letters, digits, dot, hyphen, underscore."
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        value={name}
        onChange={setName}
      />
      <PasswordField value={password} onChange={setPassword} />
      <GrantFields grants={grants} sites={sites} onChange={setGrants} />
    </Confirm>
  );
}

function PasswordField({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  return (
    <Field
      label="Password"
      type="password"
      autoComplete="new-password"
      required
      minLength={PASSWORD_CHARS_MIN}
      hint={`At least ${PASSWORD_CHARS_MIN} characters. Nothing else is asked of it.`}
      value={value}
      onChange={onChange}
    />
  );
}

function Grants({ user, sites, onClose }: { user: User; sites: Site[]; onClose: () => void }) {
  const [grants, setGrants] = useState(user.grants);
  return (
    <Confirm
      title={`Roles of ${user.name}`}
      verb="Change the roles"
      says={
        <p>
          From now on {user.name} may do what these roles may, and nothing else.{' '}
          <TakesTwo what="grant_roles" when="A role that was not there before" />
        </p>
      }
      order={() => ({ path: paths.grants(user.name), body: { grants } })}
      onClose={onClose}
    >
      <GrantFields grants={grants} sites={sites} onChange={setGrants} />
    </Confirm>
  );
}

function Password({ user, onClose }: { user: User; onClose: () => void }) {
  const [password, setPassword] = useState('');
  return (
    <Confirm
      title={`New password for ${user.name}`}
      verb="Set the password"
      says={
        <p>
          Every session of {user.name} ends. <TakesTwo what="grant_roles" />
        </p>
      }
      order={() => ({ path: paths.password(user.name), body: { password } })}
      onClose={onClose}
    >
      <PasswordField value={password} onChange={setPassword} />
    </Confirm>
  );
}
