import { describe, expect, it } from 'vitest';
import { agentPermissions, commandsOf, commandsOfNode, isAnswerSubject, nodeOfDurable, nodeOfSubject, parseEventSubject, parseReportSubject, reportsFor, subjects, token } from './topology.ts';

describe('names', () => {
  it('cannot gain a token or a wildcard from an id', () => {
    for (const bad of ['a.b', '*', '>', 'a b', '', 'ä', 'a\n', 'x'.repeat(201)]) {
      expect(() => token(bad)).toThrow(RangeError);
      expect(() => subjects.command('ipam', bad)).toThrow(RangeError);
      expect(() => agentPermissions(bad)).toThrow(RangeError);
      expect(() => commandsOf(bad)).toThrow(RangeError);
    }
  });

  it('are those of the architecture', () => {
    expect(subjects.event('vm', 'vm_1', 'VmStarted')).toBe('cv.evt.vm.vm_1.VmStarted');
    expect(subjects.command('ipam', 'subnet_7')).toBe('cv.cmd.ipam.subnet_7');
    expect(subjects.command('node', 'node_a')).toBe(commandsOfNode('node_a').filter);
    expect(subjects.dead('cv.cmd.ipam.subnet_7')).toBe('cv.dead.cv.cmd.ipam.subnet_7');
    expect(commandsOf('ipam')).toMatchObject({ durable: 'ipam-commands', filter: 'cv.cmd.ipam.*' });
    expect(commandsOfNode('node_a').durable).toBe('node-node_a-commands');
    expect(reportsFor('storage', 'volume').filter).toBe('cv.rpt.*.volume.*');
  });

  it('are read back as they were written', () => {
    expect(parseEventSubject(subjects.event('vm', 'vm_1', 'VmStarted'))).toEqual({ category: 'vm', id: 'vm_1', type: 'VmStarted' });
    expect(parseReportSubject(subjects.report('node_a', 'vm', 'vm_1'))).toEqual({ nodeId: 'node_a', category: 'vm', id: 'vm_1' });
    expect(nodeOfSubject(subjects.hello('node_a'))).toBe('node_a');
    expect(nodeOfDurable(commandsOfNode('node_a').durable)).toBe('node_a');
    expect(nodeOfDurable('ipam-commands')).toBeUndefined();
    expect(parseEventSubject('cv.evt.vm.vm_1')).toBeUndefined();
    expect(parseReportSubject('cv.rpt.node_a.vm.vm_1.more')).toBeUndefined();
    expect(isAnswerSubject(subjects.answer('p', 'node', 'node_a'))).toBe(true);
    expect(isAnswerSubject(subjects.answer('p', 'ipam', 'subnet_1'))).toBe(true);
  });
});

describe('what an agent may', () => {
  it('names its own node in everything, and no API of JetStream', () => {
    const { pub, sub } = agentPermissions('node_a');
    expect([...pub.allow, ...sub.allow].filter((subject) => !subject.includes('node_a'))).toEqual([]);
    expect(pub.allow.filter((subject) => subject.includes('$JS.API'))).toEqual([]);
  });
});
