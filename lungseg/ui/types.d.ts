/** What Streamlit hands to the default export of a component's script. */
export interface ComponentArguments<Data> {
  data: Data;
  parentElement: ParentNode;
  setStateValue(name: string, value: unknown): void;
  setTriggerValue(name: string, value: unknown): void;
}
