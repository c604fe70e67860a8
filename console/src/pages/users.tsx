import { Page, Panel } from '../parts/page.tsx';
import { NotYours } from '../parts/problem.tsx';
import { useMe } from '../site/me.tsx';
import { may } from '../site/rights.ts';
import { SitesPanel } from '../users/sites.tsx';
import { TokensPanel } from '../users/tokens.tsx';
import { TwoPeoplePanel } from '../users/two-people.tsx';
import { UsersPanel } from '../users/users.tsx';

/** Who may do what: people, the tokens of their programs, sites, and what nobody does alone. */
export default function UsersPage() {
  const me = useMe();
  return (
    <Page title="Users" className="users" lead="People, the tokens of their programs, sites, and what takes two.">
      {may(me, 'users.read') ? (
        <UsersPanel />
      ) : (
        <Panel title="People">
          <NotYours scope="users.read" what="Other people" />
        </Panel>
      )}
      <TokensPanel />
      <SitesPanel />
      <TwoPeoplePanel />
    </Page>
  );
}
