import { Component, type ReactNode } from 'react';
import { ProblemNote } from './problem.tsx';

/** A fault of the console's own: said, instead of an empty page. */
export class Fault extends Component<{ children: ReactNode }, { error?: Error }> {
  override state: { error?: Error } = {};

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    if (!this.state.error) return this.props.children;
    return (
      <main className="sign-in">
        <div className="opening">
          <ProblemNote error={this.state.error} again={() => location.reload()} />
        </div>
      </main>
    );
  }
}
