//! A crate's public interface, so that a change to it is seen in review: a test of each crate that names this file in its
//! manifest, against its own `tests/public_api.txt`.
//!
//! `UPDATE_PUBLIC_API=1 cargo test -p gramme-vclock --test public_api` writes a list anew.
//!
//! The list is what stands in the sources without bodies, private items and comments, and what the manifest promises: features,
//! the oldest compiler, the versions of dependencies, whose types may be part of the interface. What the compiler derives
//! unasked, `Send` and `Sync`, is for tests of each crate.

use std::fs;
use std::path::{Path, PathBuf};
use syn::{Attribute, Field, Fields, ImplItem, Item, TraitItem, Visibility};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a manifest's section.
fn section(manifest: &str, name: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != format!("[{name}]")).skip(1);
    let lines = lines.map(str::trim).take_while(|line| !line.starts_with('['));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// What the manifests say to who depends on the crate. What the crate's own leaves to the workspace's stands there.
fn promises(own: &str, workspace: &str) -> Vec<String> {
    let shared = section(workspace, "workspace.dependencies");
    let mut promises = section(workspace, "workspace.package");
    promises.retain(|line| line.starts_with("rust-version"));
    promises.extend(section(own, "features").iter().map(|line| format!("feature {line}")));
    for line in section(own, "dependencies") {
        let name = line.split(['.', ' ', '=']).next().unwrap();
        let version = shared.iter().filter(|shared| shared.split(['.', ' ', '=']).next() == Some(name));
        promises.push(format!("dependency {line}"));
        promises.extend(version.map(|version| format!("  {version}")));
    }
    promises
}

/// Attributes that say nothing to a caller, or what is no promise.
fn keep_promises(attributes: &mut Vec<Attribute>) {
    let silent = ["allow", "expect", "inline", "cold", "must_use", "track_caller"];
    attributes.retain(|attribute| {
        let path = attribute.path();
        let hidden = || attribute.parse_args::<syn::Ident>().is_ok_and(|what| what == "hidden");
        if path.is_ident("doc") { hidden() } else { !silent.iter().any(|name| path.is_ident(name)) }
    });
}

fn is_test(attributes: &[Attribute]) -> bool {
    let test = |attribute: &Attribute| attribute.parse_args::<syn::Ident>().is_ok_and(|what| what == "test");
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && test(attribute))
}

/// The files of modules that are there for tests alone.
fn test_modules(file: &Path, parsed: &syn::File) -> Vec<PathBuf> {
    let root = ["lib", "main", "mod"].iter().any(|name| file.file_stem().is_some_and(|stem| stem == *name));
    let folder = if root { file.parent().unwrap().to_owned() } else { file.with_extension("") };
    let named = |item: &Item| match item {
        Item::Mod(one) if one.content.is_none() && is_test(&one.attrs) => Some(one.ident.to_string()),
        _ => None,
    };
    let named = parsed.items.iter().filter_map(named);
    named.flat_map(|name| [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]).collect()
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Public fields as they are, and of private ones that there are some: who builds or matches the type sees no more.
fn strip_fields(fields: &mut Fields) {
    let strip = |field: &mut Field| {
        keep_promises(&mut field.attrs);
        if !is_public(&field.vis) {
            field.ty = syn::parse_quote!(_);
        }
    };
    match fields {
        // The place of a field without a name counts.
        Fields::Unnamed(fields) => fields.unnamed.iter_mut().for_each(strip),
        Fields::Named(fields) => {
            let all = std::mem::take(&mut fields.named).into_iter();
            let (public, private): (Vec<_>, Vec<_>) = all.partition(|field| is_public(&field.vis));
            fields.named = public.into_iter().collect();
            fields.named.iter_mut().for_each(strip);
            if !private.is_empty() {
                fields.named.push(syn::parse_quote!(private: _));
            }
        }
        Fields::Unit => {}
    }
}

/// The item as its users know it; `None` if they don't.
fn strip(mut item: Item) -> Option<Item> {
    let attributes = match &mut item {
        Item::Const(one) => &mut one.attrs,
        Item::Enum(one) => &mut one.attrs,
        Item::Fn(one) => &mut one.attrs,
        Item::Impl(one) => &mut one.attrs,
        Item::Macro(one) => &mut one.attrs,
        Item::Mod(one) => &mut one.attrs,
        Item::Static(one) => &mut one.attrs,
        Item::Struct(one) => &mut one.attrs,
        Item::Trait(one) => &mut one.attrs,
        Item::Type(one) => &mut one.attrs,
        Item::Union(one) => &mut one.attrs,
        Item::Use(one) => &mut one.attrs,
        _ => return None,
    };
    if is_test(attributes) {
        return None;
    }
    keep_promises(attributes);
    let seen = match &mut item {
        Item::Const(one) => is_public(&one.vis),
        Item::Static(one) => is_public(&one.vis),
        Item::Type(one) => is_public(&one.vis),
        Item::Use(one) => is_public(&one.vis),
        // What a macro makes can't be seen from here, so all of it counts.
        Item::Macro(one) => one.ident.is_none() || !one.attrs.is_empty(),
        Item::Fn(one) => {
            *one.block = syn::parse_quote!({});
            is_public(&one.vis)
        }
        Item::Enum(one) => {
            for variant in &mut one.variants {
                keep_promises(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| keep_promises(&mut field.attrs));
            }
            is_public(&one.vis)
        }
        Item::Struct(one) => {
            strip_fields(&mut one.fields);
            is_public(&one.vis)
        }
        Item::Union(one) => is_public(&one.vis),
        Item::Trait(one) => {
            for item in &mut one.items {
                match item {
                    TraitItem::Const(one) => keep_promises(&mut one.attrs),
                    TraitItem::Type(one) => keep_promises(&mut one.attrs),
                    TraitItem::Fn(method) => {
                        keep_promises(&mut method.attrs);
                        method.default = method.default.take().map(|_| syn::parse_quote!({}));
                    }
                    _ => {}
                }
            }
            is_public(&one.vis)
        }
        Item::Impl(one) => {
            let of_trait = one.trait_.is_some();
            one.items.retain_mut(|item| match item {
                // That a trait's methods are there follows from the trait.
                ImplItem::Fn(method) => {
                    keep_promises(&mut method.attrs);
                    method.block = syn::parse_quote!({});
                    !of_trait && is_public(&method.vis)
                }
                ImplItem::Const(one) => {
                    keep_promises(&mut one.attrs);
                    of_trait || is_public(&one.vis)
                }
                ImplItem::Type(one) => {
                    keep_promises(&mut one.attrs);
                    of_trait || is_public(&one.vis)
                }
                _ => true,
            });
            of_trait || !one.items.is_empty()
        }
        Item::Mod(one) => {
            if let Some((_, items)) = &mut one.content {
                *items = std::mem::take(items).into_iter().filter_map(strip).collect();
            }
            is_public(&one.vis) || one.content.as_ref().is_some_and(|(_, items)| !items.is_empty())
        }
        _ => false,
    };
    seen.then_some(item)
}

#[test]
fn the_public_interface_is_as_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    files.sort();
    let own = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let workspace = fs::read_to_string(root.join("../Cargo.toml")).unwrap();
    let mut listed = promises(&own, &workspace).iter().map(|line| format!("{line}\n")).collect::<String>();
    let parsed: Vec<(PathBuf, syn::File)> = files
        .into_iter()
        .map(|file| (file.clone(), syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap()))
        .collect();
    let tests: Vec<PathBuf> = parsed.iter().flat_map(|(file, parsed)| test_modules(file, parsed)).collect();
    for (file, mut parsed) in parsed.into_iter().filter(|(file, _)| !tests.contains(file)) {
        keep_promises(&mut parsed.attrs);
        parsed.items = parsed.items.into_iter().filter_map(strip).collect();
        if parsed.items.is_empty() {
            continue;
        }
        let name = file.strip_prefix(root).unwrap().display().to_string().replace('\\', "/");
        listed.push_str(&format!("\n// {name}\n{}", prettyplease::unparse(&parsed)));
    }
    let list = root.join("tests/public_api.txt");
    if std::env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&list, &listed).unwrap();
    }
    let expected = fs::read_to_string(&list).unwrap_or_default();
    for (is, was) in listed.lines().zip(expected.lines()) {
        assert_eq!(is, was, "the public interface changed; see this test's head");
    }
    assert_eq!(listed, expected, "the public interface changed; see this test's head");
}
