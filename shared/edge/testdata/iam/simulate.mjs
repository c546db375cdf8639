// Reads {"policies": [document], "cases": [[policy's index, method ARN]]} and writes
// [verdict] in the cases' order, as @cloud-copilot/iam-simulate gives them:
// "Allowed", "ImplicitlyDenied" or "ExplicitlyDenied".
//
// An authorizer's policy is an identity's: nothing else takes part. The package is
// looked for below KEYWAY_IAM_SIMULATE, the directory that make iam installs it in.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const { runSimulation } = createRequire(join(process.env.KEYWAY_IAM_SIMULATE, 'package.json'))('@cloud-copilot/iam-simulate')
const { policies, cases } = JSON.parse(readFileSync(0, 'utf8'))

const verdicts = []
for (const [policy, resource] of cases) {
  const answer = await runSimulation({
    request: {
      principal: 'arn:aws:iam::123456789012:user/caller',
      action: 'execute-api:Invoke',
      resource: { accountId: '123456789012', resource },
      contextVariables: {},
    },
    identityPolicies: [{ name: 'authorizer', policy: policies[policy] }],
    serviceControlPolicies: [],
    resourceControlPolicies: [],
  }, {})
  if (answer.resultType !== 'single') throw new Error(`${resource}: ${JSON.stringify(answer)}`)
  verdicts.push(answer.overallResult)
}
process.stdout.write(JSON.stringify(verdicts))
