import { createContext, useContext } from 'react';
import type { Me } from './contract.ts';

const WhoIsSignedIn = createContext<Me | null>(null);
export const SignedIn = WhoIsSignedIn.Provider;

/** Who is signed in. Only inside the shell, where somebody is. */
export function useMe(): Me {
  const me = useContext(WhoIsSignedIn);
  if (!me) throw new Error('asked who is signed in where nobody is');
  return me;
}
