import { lazy, type ReactNode, Suspense } from 'react';
import { AlertsPage } from './pages/alerts.tsx';
import { ApprovalPage } from './pages/approval.tsx';
import { ApprovalsPage } from './pages/approvals.tsx';
import { DevicePage } from './pages/device.tsx';
import { EvidencePage } from './pages/evidence.tsx';
import { FleetPage } from './pages/fleet.tsx';
import { ReleasesPage } from './pages/releases.tsx';
import { RolloutPage } from './pages/rollout.tsx';
import { RolloutsPage } from './pages/rollouts.tsx';
import { SignIn } from './pages/sign-in.tsx';
import { Lines } from './parts/asked.tsx';
import { Button } from './parts/button.tsx';
import { Mark } from './parts/icon.tsx';
import { Page } from './parts/page.tsx';
import { ProblemNote } from './parts/problem.tsx';
import { go, pathTo, usePlace } from './route.tsx';
import { Shell } from './shell/shell.tsx';
import { useSession } from './site/ask.ts';
import { SignedIn } from './site/me.tsx';

// Seldom looked at: they come when they are asked for.
const NewRolloutPage = lazy(() => import('./pages/new-rollout.tsx'));
const ReportPage = lazy(() => import('./pages/report.tsx'));
const UsersPage = lazy(() => import('./pages/users.tsx'));

/** Somebody's pages, or the way in. */
export function App() {
  const session = useSession();
  if (session.data === undefined)
    return <Waiting error={session.error} again={() => session.refetch()} />;
  if (session.data === null) return <SignIn />;
  return (
    <SignedIn value={session.data}>
      <Shell>
        <Here />
      </Shell>
    </SignedIn>
  );
}

function Here() {
  const { page, name } = usePlace();
  switch (page) {
    case 'fleet':
      return <FleetPage />;
    case 'devices':
      return name ? <DevicePage key={name} id={name} /> : <FleetPage />;
    case 'rollouts':
      return name ? <RolloutPage key={name} id={name} /> : <RolloutsPage />;
    case 'new-rollout':
      return <Later title="New rollout">{<NewRolloutPage />}</Later>;
    case 'releases':
      return <ReleasesPage />;
    case 'alerts':
      return <AlertsPage view={name} />;
    case 'approvals':
      return name ? <ApprovalPage key={name} id={name} /> : <ApprovalsPage />;
    case 'evidence':
      return <EvidencePage />;
    case 'report':
      return <Later title="Weekly report">{<ReportPage />}</Later>;
    case 'users':
      return <Later title="Users">{<UsersPage />}</Later>;
  }
  return (
    <Page title="There is no such page">
      <p>The address may be mistyped, or of another version of the console.</p>
      <Button kind="main" onClick={() => go(pathTo('fleet'))}>
        To the fleet
      </Button>
    </Page>
  );
}

function Later({ title, children }: { title: string; children: ReactNode }) {
  const waiting = (
    <Page title={title}>
      <div aria-busy="true">
        <Lines n={8} />
      </div>
    </Page>
  );
  return <Suspense fallback={waiting}>{children}</Suspense>;
}

function Waiting({ error, again }: { error: Error | null; again: () => void }) {
  return (
    <main className="sign-in" aria-busy={!error}>
      <div className="opening">
        <div className="brand">
          <Mark />
          <span>Plimsoll</span>
        </div>
        {error ? (
          <ProblemNote error={error} again={again} />
        ) : (
          <p role="status">Asking who you are…</p>
        )}
      </div>
    </main>
  );
}
