"""Model folders and the temporary folder; tests set both."""

from pathlib import Path

models_dir = ""
temp_directory = ""
folder_names_and_paths = {name: ([], set()) for name in ("diffusion_models", "vae", "custom_nodes")}


def get_temp_directory():
    return temp_directory


def add_model_folder_path(folder_name, full_folder_path, is_default=False):
    paths, _ = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if full_folder_path not in paths:
        paths.append(full_folder_path)


def get_folder_paths(folder_name):
    return folder_names_and_paths[folder_name][0][:]


def get_filename_list(folder_name):
    return sorted(
        {
            str(path.relative_to(folder))
            for folder in folder_names_and_paths[folder_name][0]
            for path in Path(folder).rglob("*")
            if path.is_file()
        }
    )


def get_full_path(folder_name, filename):
    for folder in folder_names_and_paths[folder_name][0]:
        if (path := Path(folder) / filename).is_file():
            return str(path)
    return None
