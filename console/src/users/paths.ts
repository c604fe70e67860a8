/** Where the affairs of users are. */

const user = (name: string) => `/v1/users/${encodeURIComponent(name)}`;

export const paths = {
  users: '/v1/users',
  grants: (name: string) => `${user(name)}/grants`,
  password: (name: string) => `${user(name)}/password`,
  disable: (name: string) => `${user(name)}/disable`,
  enable: (name: string) => `${user(name)}/enable`,
  endSessions: (name: string) => `${user(name)}/end-sessions`,
  tokens: '/v1/tokens',
  revokeToken: (id: string) => `/v1/tokens/${encodeURIComponent(id)}/revoke`,
  sites: '/v1/sites',
  twoPeople: '/v1/settings/two-people',
};
